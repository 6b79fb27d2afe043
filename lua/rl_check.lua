-- rl_check: one or more limits, all or nothing, one atomic step; in a cold region at most half of each.
-- Twin: policy/src/limit.rs (gcra.rs, window.rs). Same doubles, same order of operations; gateway/tests/differential.rs compares.
--
-- KEYS  1..n   one string per limit
--       n+1..  one string per shard, its mark: when the region began here, in µs since 2024-01-01. None if nothing is guarded.
-- ARGV  1      now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2      how long a region is cold after its mark, in µs
--       3..n+2 per limit, packed as <BBddddd (numbers as text cost a tenth of the whole): algorithm (103 g: gcra, 119 w: window;
--              capital: the limit counts for itself, it is charged if it admits and the others do, and denies nobody),
--              number of its mark (1 = KEYS[n+1], 0 = none, 255 = what it says stands behind all else, as <d: it lies on another
--              node), cost (0 = look only), x, y, and x and y of a cold region.
--              gcra: the emission interval and the span of a burst in µs; window: the limit and the period in µs, and
--              behind all that, as <Bd, the exponent of its tick, and its slot in µs
-- Returns flat integers: allowed (1/0), now_us since 1970-01-01, then for each limit
--       remaining, next_us (until one more unit), reset_us (until full),
--       retry_us (0 = fits now, -1 = cost above burst, never),
--       cold (1 = the cold numbers are in force; and 2 more if it holds a grant or leases, so that reset_us tells no charge)
-- A grant (see rl_grant) stands before either; a request that does not fit its limit is charged to it, as a whole.
-- Writes only if every limit admits that does not count for itself, so a denied request costs nothing; besides, what lies too far ahead of a clock that
-- stepped back. Each write sets its own expiry. A mark that is missing, or lies ahead of such a clock, is set:
-- the region begins now, and is cold.
--
-- gcra holds the theoretical arrival time in µs since 2024-01-01 and its reach, packed as <dB: the span of the largest numbers
-- that charged it is below 2^reach µs (without it, nothing is known of them). Further ahead than that it is only after a clock
-- stepped back; what another filter's larger numbers charged is not forgotten. The time and the intervals are whole sixteenths of
-- a µs: such doubles add up exactly until 2041, so that no rounding ever admits a unit too many. Up to now + y there is
-- room in the bucket; up to one y above that lies debt, in a cold region also what a warm one had admitted.
-- With leases it holds what lua/rl_lease.lua says: they are room that is taken, and stay as they are.
-- window holds what was admitted in each slot, packed as Groups::to_bytes in policy/src/window.rs says: the end of the
-- latest tick, the units. Each counts for one period.
local EPOCH_US = 1704067200000000
local GROUP = { '<BI1', '<BI2', '<BI3', '<BI4' }
local call, floor, ceil, frexp, read = redis.call, math.floor, math.ceil, math.frexp, struct.unpack

local now = ARGV[1]
if now == '0' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2] - EPOCH_US
else
  now = now - EPOCH_US
end

local n = #ARGV - 2
local held = call('MGET', unpack(KEYS))
-- MGET reads a key of another type as absent, and SET would then overwrite it in silence: GET says so.
for i = 1, #KEYS do
  if not held[i] then held[i] = call('GET', KEYS[i]) end
end

local left = {}
for i = n + 1, #KEYS do
  local start = tonumber(held[i] or now)
  if not start or start ~= start then return redis.error_reply('TGSTATE ' .. KEYS[i] .. ' holds no time') end
  if not held[i] or start > now then
    start = now
    call('SET', KEYS[i], now)
  end
  left[i - n] = start + ARGV[2] - now
end

-- What is leased raises the arrival time, now and at each end of a generation since, to an empty bucket at most (rl_lease); until
-- when any of it counts, and until when the floor of its end does.
local leases
local function leased(stored, tat, x, most)
  local fin, u0, u1, span = read('<dddI4', stored, 11)
  local over = fin + span
  local kept = over + math.min((u0 + u1) * x, most)
  if now >= fin then
    tat = math.max(tat, fin + math.min((u0 + u1) * x, most))
    u0, u1 = 0, u0
    if now >= over then
      tat = math.max(tat, over + math.min(u1 * x, most))
      u1 = 0
    end
  end
  return math.max(tat, now + math.min((u0 + u1) * x, most)), over, kept
end

-- Only where there is a grant: what is left of it, until when, the limit's own state, and what is drawn.
local grants
-- How long until `need` units of a window have run out.
local wait
local rows, allowed = {}, 1
for i = 1, n do
  local algorithm, mark, cost, x, y, cold_x, cold_y = read('<BBddddd', ARGV[i + 2])
  local stored, warm_x, warm_y, cold, retry, torn = held[i], x, y, left[mark] or 0, 0, false
  if mark == 255 then cold = math.min(read('<d', ARGV[i + 2], #ARGV[i + 2] - 7), now) + ARGV[2] - now end
  local alone = algorithm < 97
  if alone then algorithm = algorithm + 32 end
  if cold > 0 then x, y = cold_x, cold_y end
  if stored and #stored > 11 and stored:byte() == 255 then
    local granted, till = read('<I4I7', stored, 2)
    stored = stored:sub(13)
    if till > now then
      grants = grants or {}
      grants[i] = { granted, till, stored, 0 }
    end
  end
  if algorithm == 103 then
    local horizon, tat = now + y, now
    local _, own = frexp(math.max(y, warm_y))
    local reach = own
    if stored then
      local size = #stored
      local has_leases = size >= 46 and (size - 46) % 21 == 0 and stored:byte() == 254
      local known = 0
      if size == 9 then tat, known = read('<dB', stored) elseif size == 8 then tat = read('<d', stored)
      elseif has_leases then known, tat = read('<Bd', stored, 2) end
      if not has_leases and size ~= 9 and size ~= 8 or tat ~= tat then
        return redis.error_reply('TGSTATE ' .. KEYS[i] .. ' holds no arrival time')
      end
      if tat < now then tat = now end
      if has_leases then
        local over, kept
        tat, over, kept = leased(stored, tat, x, known == 0 and math.huge or known > own and 2 ^ known or math.max(y, warm_y))
        if now < over then
          leases = leases or {}
          leases[i] = { stored:sub(11), kept }
        end
      end
      -- Where nothing is known no clock is blamed.
      if tat > now and (known == 0 or known > own) then reach = known end
      if reach > 0 then
        local ceiling = reach > own and now + 2 ^ (reach + 1) or math.max(horizon + y, now + warm_y + warm_y)
        if tat > ceiling then tat, torn = ceiling, true end
      end
      if reach < own then reach = own end
    end
    local after = tat + cost * x
    if after > horizon then
      if cost * warm_x > warm_y then retry = -1
      elseif cost * x > y then retry = cold
      else retry = ceil(after - horizon) end
    end
    rows[i] = { x, y, tat, after, torn, retry, cold, cost, false, reach }
  else
    wait = wait or function(lasts, units, period, need)
      for s = 1, #lasts do
        need = need - units[s]
        if need <= 0 then return lasts[s] + period - now end
      end
      return 0
    end
    local exponent, slot = read('<Bd', ARGV[i + 2], 43)
    local tick = 2 ^ exponent
    local newest = now - now % tick + tick - 1
    local lasts, units, used, slots = {}, {}, 0, 0
    if stored and stored ~= '' then
      local code = read('<B', stored)
      local then_tick, size = 2 ^ floor(code / 4), 2 + code % 4
      if #stored < 7 or (#stored - 7) % size ~= 0 then
        return redis.error_reply('TGSTATE ' .. KEYS[i] .. ' holds no window')
      end
      local base = read('<I6', stored, 2)
      for at = 8, #stored, size do
        local age, count = read(GROUP[size - 1], stored, at)
        local last = (base - age) * then_tick + then_tick - 1
        if last > newest then torn = true end
        last = last - last % tick + tick - 1
        if last > newest then last = newest end
        if last + y > now then
          if slots == 0 or floor(lasts[slots] / slot) ~= floor(last / slot) then
            slots = slots + 1
            units[slots] = 0
          end
          lasts[slots], units[slots], used = last, units[slots] + count, used + count
        end
      end
    end
    if used + cost > x then
      if cost > warm_x then retry = -1
      elseif cost > x then retry = cold
      else retry = wait(lasts, units, y, used + cost - x) end
    end
    rows[i] = { x, y, lasts, units, torn, retry, cold, cost, used, exponent, slot, newest }
  end
  local grant = grants and grants[i]
  if retry ~= 0 and grant and grant[1] >= cost then
    rows[i][6], rows[i][8], retry, grant[4] = 0, 0, 0, cost
  end
  if retry ~= 0 then
    if alone then rows[i][8] = 0 else allowed = 0 end
  end
end

-- Made for one limit at once: a table that grows is copied.
local reply = { allowed, now + EPOCH_US, 0, 0, 0, 0, 0 }
for i = 1, n do
  -- Of a window: the moments, the units and their sum.
  local x, y, tat, after, torn, retry, cold, cost, used, exponent, slot, newest = unpack(rows[i])
  local charged, remaining, next_us, reset = allowed == 1 and cost > 0, 0, 0, 0
  local value, left_us
  if not used then
    if charged then tat = after end
    reset = ceil(tat - now)
    if charged or torn then
      local beside = leases and leases[i]
      left_us = tat - now
      if beside then
        value, left_us = struct.pack('<BBd', 254, exponent, tat) .. beside[1], math.max(left_us, beside[2] - now)
      else
        -- Where an exponent stands for a window.
        value = struct.pack('<dB', tat, exponent)
      end
    end
    local free = now + y - tat
    if free > 0 then remaining = floor(free / x) end
    if tat > now then next_us = ceil((remaining + 1) * x - free) end
  else
    local lasts, units, slots = tat, after, #tat
    if charged then
      if slots == 0 or floor(lasts[slots] / slot) ~= floor(newest / slot) then
        slots = slots + 1
        units[slots] = 0
      end
      lasts[slots], units[slots], used = newest, units[slots] + cost, used + cost
    end
    if slots > 0 then reset = lasts[slots] + y - now end
    if charged or torn then
      local tick, most, packed = 2 ^ exponent, 0, {}
      for s = 1, slots do most = math.max(most, units[s]) end
      local width = most < 256 and 1 or most < 65536 and 2 or most < 16777216 and 3 or 4
      if slots > 0 then packed[1] = struct.pack('<BI6', exponent * 4 + width - 1, floor(lasts[slots] / tick)) end
      for s = 1, slots do packed[s + 1] = struct.pack(GROUP[width], (lasts[slots] - lasts[s]) / tick, units[s]) end
      value, left_us = table.concat(packed), slots > 0 and reset or y
    end
    if used < x then remaining = x - used end
    next_us = wait(lasts, units, y, math.max(used + 1 - x, 1))
  end
  local grant = grants and grants[i]
  if grant then
    local units, till, own, drawn = unpack(grant)
    if allowed == 0 then drawn = 0 end
    units = units - drawn
    remaining = remaining + units
    if drawn > 0 and not value then
      value, left_us = own, reset
      if leases and leases[i] then left_us = math.max(left_us, leases[i][2] - now) end
    end
    if value and units > 0 then
      value, left_us = struct.pack('<BI4I7', 255, units, till) .. value, math.max(left_us, till - now)
    end
  end
  if value then call('SET', KEYS[i], value, 'PX', ceil(left_us / 1000) + 1) end
  local base = 5 * i - 2
  reply[base], reply[base + 1], reply[base + 2] = remaining, next_us, reset
  local beside = grant or leases and leases[i]
  reply[base + 3], reply[base + 4] = retry, (cold > 0 and 1 or 0) + (beside and 2 or 0)
end
return reply
