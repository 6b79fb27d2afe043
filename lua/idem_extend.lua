-- idem_extend: locks a claim for longer: the heartbeat of an upstream that takes long. One atomic step; may be repeated.
-- Twin: policy/src/idempotency/record.rs (extend). gateway/tests/claims/differential.rs compares.
--
-- KEYS  1      the record
-- ARGV  1      now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2      whose claim: 16 octets
--       3      its fence
--       4      how long it is locked from now on, in µs
--       5      how long the record lives from now on, in ms
-- Returns 1 = locked for longer; 0 = the claim is another's, done or given back; -1 = there is no record
-- A write sets the expiry.
--
-- For the format of a record see idem_begin.
local HEAD, HEAD_LEN, IN_FLIGHT = '<BBI2I7I7c16c32I4', 70, 1
local ENDED_MAX_LEN = 7 * 16
local call = redis.call

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

local head = call('GETRANGE', KEYS[1], 0, HEAD_LEN + ENDED_MAX_LEN - 1)
if head == '' then return -1 end
if #head < HEAD_LEN or head:byte(1) ~= 1 or head:byte(2) > 3 then
  return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no record')
end
local _, state, _, fence, _, owner, hash = struct.unpack(HEAD, head)
if state ~= IN_FLIGHT or owner ~= ARGV[2] or fence ~= tonumber(ARGV[3]) then return 0 end
local locked = struct.pack(HEAD, 1, IN_FLIGHT, 0, fence, now + ARGV[4], owner, hash, math.ceil(ARGV[4] / 1000))
call('SET', KEYS[1], locked .. head:sub(HEAD_LEN + 1), 'PX', ARGV[5])
return 1
