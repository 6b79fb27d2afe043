-- rl_lease: a holder reports what it keeps and gives back of a limit's units, and takes some out ahead. One atomic step.
-- Twin: policy/src/lease/step.rs (bucket.rs). Same doubles, same order of operations; gateway/tests/leases compares.
--
-- KEYS  1      the limit, as in rl_check: what is leased and what is charged come out of one bucket
--       2      the mark of its shard, as in rl_check; absent if nothing is guarded
-- ARGV  1      now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2      how long a region is cold after its mark, in µs
--       3      the call, packed as <c8I4I4I4I4BddddI4I4I4: holder, seq, demand (units a second, at most 2^24-1), left,
--              back, want (0 nothing, 1 ahead, 2 now), interval and span in µs as in rl_check, both of a cold region,
--              and the length of a generation, the life of a busy key's lease, and the shortest pause, in µs
--       4      what the mark says that lies on another node while the slot moves, in place of KEYS[2]
-- Returns flat integers: heard (1; 0 = a newer message was before, nothing changed), granted, ttl_us, deny_us,
--       remaining, scarce (1/0), cold (1/0)
-- The key then holds, packed as <BBddddI4I4I4: 254, the reach and the arrival time of rl_check, the end of the generation, the
-- units that may be unspent of leases of this and of the last generation, the next generation's length, the demand of both; and behind
-- that each holder as <c8I4I4I4B: id, seq, units, demand, age (0/1 generation). At most 255 holders. Expires when the bucket is full, no lease is left,
-- and what was spent at the end of the last one has come back.
--
-- The order matters: the floor is applied with what was leased before this report, at each end of a generation and now;
-- only then the report is heard. What the bucket does not count cannot be given back. The floor is an empty bucket at most, of the
-- largest numbers that are known: what was leased while a unit took less time to come back is no debt.
local EPOCH_US = 1704067200000000
local HOLDERS_MAX, HOLDER_LEN, HEAD_LEN = 255, 21, 46
local call, floor, ceil = redis.call, math.floor, math.ceil
local read, pack = struct.unpack, struct.pack

local now = ARGV[1]
if now == '0' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2] - EPOCH_US
else
  now = now - EPOCH_US
end

local cold, began = 0, ARGV[4]
if KEYS[2] then began = call('GET', KEYS[2]) or 'none' end
if began then
  local start = began == 'none' and now or tonumber(began)
  if not start or start ~= start then return redis.error_reply('TGSTATE ' .. (KEYS[2] or '') .. ' holds no time') end
  if KEYS[2] and (began == 'none' or start > now) then call('SET', KEYS[2], now) end
  cold = math.min(start, now) + ARGV[2] - now
end

local holder, seq, demand, left, back, want, x, y, cold_x, cold_y, generation, short, hold =
  read('<c8I4I4I4I4BddddI4I4I4', ARGV[3])
local warm_x, warm_y = x, y
if cold > 0 then x, y = cold_x, cold_y end

local stored = call('GET', KEYS[1])
-- A grant (see rl_grant) stays as it is.
local grant, granted_till = '', now
if stored and #stored > 11 and stored:byte() == 255 then
  local _, till = read('<I4I7', stored, 2)
  if till > now then grant, granted_till = stored:sub(1, 12), till end
  stored = stored:sub(13)
end
local tat, fin, u0, u1, span, d0, d1, holders = now, now + generation, 0, 0, generation, 0, 0, ''
local known = 0
if stored and #stored == 9 then tat, known = read('<dB', stored)
elseif stored and #stored == 8 then tat = read('<d', stored)
elseif stored then
  if #stored < HEAD_LEN or (#stored - HEAD_LEN) % HOLDER_LEN ~= 0 or stored:byte() ~= 254 then
    return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no lease')
  end
  known, tat, fin, u0, u1, span, d0, d1 = read('<BddddI4I4I4', stored, 2)
  holders = string.sub(stored, HEAD_LEN + 1)
end
if tat ~= tat then return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no arrival time') end
if tat < now then tat = now end
local _, own = math.frexp(math.max(y, warm_y))
local most = known == 0 and math.huge or known > own and 2 ^ known or math.max(y, warm_y)
local was_leased = stored and #stored > 9

local function shift()
  local kept = {}
  for at = 1, #holders, HOLDER_LEN do
    if read('<B', holders, at + HOLDER_LEN - 1) == 0 then
      kept[#kept + 1] = string.sub(holders, at, at + HOLDER_LEN - 2) .. '\1'
    end
  end
  holders = table.concat(kept)
  u0, u1, d0, d1 = 0, u0, 0, d0
end

if was_leased then
  if now >= fin then
    tat = math.max(tat, fin + math.min((u0 + u1) * x, most))
    shift()
    fin = fin + span
    if now >= fin then
      tat = math.max(tat, fin + math.min(u1 * x, most))
      shift()
      fin = now + generation
    end
    span = generation
  elseif fin > now + 60000000 then
    fin = now + 60000000
  end
  span = math.max(span, generation)
  tat = math.max(tat, now + math.min((u0 + u1) * x, most))
end

-- Twice as far ahead it is only after a clock stepped back, as in rl_check.
local reach, torn = own, tat > now + most + most
if torn then tat = now + most + most end
if tat > now and known > own then reach = known end

local old, at = 0, 1
while true do
  at = string.find(holders, holder, at, true)
  if not at then break end
  if (at - 1) % HOLDER_LEN == 0 then
    local _, known, units, wanted_then, age = read('<c8I4I4I4B', holders, at)
    if seq <= known then return { 0, 0, 0, 0, 0, 0, cold > 0 and 1 or 0 } end
    old = units
    if age == 0 then u0, d0 = u0 - units, d0 - wanted_then else u1, d1 = u1 - units, d1 - wanted_then end
    holders = string.sub(holders, 1, at - 1) .. string.sub(holders, at + HOLDER_LEN)
    break
  end
  at = at + 1
end

left = math.min(left, old)
back = math.min(back, old - left)
tat = math.max(tat - back * warm_x, now)

local horizon = now + y
local function free_units()
  local free = horizon - tat
  return free > 0 and floor(free / x) or 0
end
local available = free_units()
local ahead = floor(demand * 500000 / 1000000)
local busy, burst, room = ahead >= 3, y / x, #holders < HOLDERS_MAX * HOLDER_LEN
local others = u0 + u1
local plenty = available > burst / 2 and others + left < burst * 0.2
local second = floor(1000000 / x)
local wanted = 0
if want > 0 and busy then
  if plenty then ahead = ahead * 3 end
  -- What lies in slices of other workers is left, and helps this one little.
  wanted = math.max(ahead - left, floor(ahead / 2))
elseif want == 2 and plenty then
  wanted = floor(burst * 0.05)
elseif want == 2 and others <= 0 then
  -- Who is alone gets a few that have come back within a second.
  wanted = math.min(available, second, 2)
end
local share = 1
if d0 + d1 > 0 then share = demand / (demand + (d0 + d1)) end
if share < 0.02 then share = 0.02 end
local granted = room and math.min(wanted, floor(available * share)) or 0
tat = tat + granted * x

local units = left + granted
if room and (units > 0 or busy) then
  holders = holders .. pack('<c8I4I4I4B', holder, seq, units, demand, 0)
  u0, d0 = u0 + units, d0 + demand
end

-- What an operator granted is drawn request by request: nobody may be denied without asking for it.
local deny = 0
if grant == '' and want > 0 and (not busy or granted < wanted) then
  local one, pause = tat + x - horizon, 0
  if busy then
    -- What is there already need not be waited for.
    pause = math.min(math.max((8 / share - free_units()) * x, hold), (tat - (now + (u0 + u1) * x)) / 2)
  elseif second > 0 and others <= 0 and free_units() == 0 then
    -- A few at once, but no later than a client is told.
    pause = math.min(2 * x, 1000000)
  end
  pause = math.max(pause, one)
  -- What others hold may come back.
  if others >= 8 then pause = math.min(pause, short) end
  deny = math.max(ceil(pause), 0)
end

local function save(value, over)
  call('SET', KEYS[1], grant .. value, 'PX', ceil((math.max(over, granted_till) - now) / 1000) + 1)
end
if holders ~= '' then
  save(pack('<BBddddI4I4I4', 254, reach, tat, fin, u0, u1, span, d0, d1) .. holders,
    math.max(tat, fin + span + math.min((u0 + u1) * x, most)))
elseif was_leased or torn then
  save(pack('<dB', tat, reach), tat)
end
return { 1, granted, busy and short or generation, deny, free_units(), grant == '' and granted < wanted and 1 or 0, cold > 0 and 1 or 0 }
