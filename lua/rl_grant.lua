-- rl_grant: lets one subject have units beyond one limit, until a moment; rl_check decides with them. One atomic step.
-- Twin: policy/src/limit/grant.rs. gateway/tests/differential.rs compares.
--
-- KEYS  1  the limit, as in rl_check
-- ARGV  1  now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2  algorithm, g or w
--       3  units, 0 takes back what was granted
--       4  for how long, in µs
-- Returns how many units were still granted before.
-- A grant takes the place of an earlier one, so it is safe to repeat. It stands before what the limit holds, packed as
-- <BI4I7: 255, the units, until when in µs since 2024-01-01. The key lives as long as the grant, at least.
local call = redis.call
local now = ARGV[1]
if now == '0' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
now = now - 1704067200000000

local held, before = call('GET', KEYS[1]), 0
if held and #held > 11 and held:byte() == 255 then
  local units, till = struct.unpack('<I4I7', held, 2)
  if till > now then before = units end
  held = held:sub(13)
end
local has_leases = held and #held >= 46 and (#held - 46) % 21 == 0 and held:byte() == 254
if held and ARGV[2] == 'g' and #held ~= 9 and #held ~= 8 and not has_leases then return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no arrival time') end
held = held or (ARGV[2] == 'g' and struct.pack('<d', now) or '')

local units, lasts = tonumber(ARGV[3]), tonumber(ARGV[4])
local left = math.max(call('PTTL', KEYS[1]), 1)
if units > 0 then
  held = struct.pack('<BI4I7', 255, units, now + lasts) .. held
  left = math.max(left, math.ceil(lasts / 1000) + 1)
end
call('SET', KEYS[1], held, 'PX', left)
return before
