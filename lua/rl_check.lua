-- rl_check: GCRA over one or more limits, all or nothing, one atomic step.
-- Twin: policy/src/gcra.rs. Same doubles, same order of operations; gateway/tests/differential.rs compares them.
--
-- KEYS  1..n   one string per limit: its theoretical arrival time (TAT) in µs since 2024-01-01
-- ARGV  1      now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       then for each key: limit, period_us, burst, cost (0 = look only)
-- Returns flat integers: allowed (1/0), now_us since 1970-01-01, then for each key
--       remaining, next_us (until one more unit), reset_us (until full),
--       retry_us (0 = fits now, -1 = cost above burst, never)
-- Writes only if every limit admits, so a denied request costs nothing. Each write sets its own
-- expiry: an idle key is gone as soon as its bucket is full.
--
-- Every time is a whole number of 1/16 µs, and the emission interval is rounded up to one: sums of such doubles are exact
-- until 2041, so that no rounding ever admits a unit too many, however long a limit is used up. Rebased on 2024-01-01 for
-- that; counted from 1970 doubles have steps of 1/4 µs.
local EPOCH_US = 1704067200000000
local GRAIN = 16

local now
if ARGV[1] == '0' then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2]) - EPOCH_US
else
  now = tonumber(ARGV[1]) - EPOCH_US
end

local rows, allowed = {}, 1
for i = 1, #KEYS do
  local a = 4 * i - 2
  local interval = math.ceil(tonumber(ARGV[a + 1]) * GRAIN / tonumber(ARGV[a])) / GRAIN
  local span = tonumber(ARGV[a + 2]) * interval
  local cost = tonumber(ARGV[a + 3])
  local horizon = now + span
  local tat = now
  -- Not MGET: it reads a key of another type as absent, and SET would then overwrite it in silence.
  local stored = redis.call('GET', KEYS[i])
  if stored then
    tat = tonumber(stored)
    if tat == nil or tat ~= tat then
      return redis.error_reply('TGSTATE ' .. KEYS[i] .. ' holds no arrival time')
    end
    if tat < now then tat = now end
    -- Above the horizon only after the clock stepped back or the limit shrank.
    if tat > horizon then tat = horizon end
  end
  local after = tat + cost * interval
  local retry = 0
  if after > horizon then
    allowed = 0
    if cost > tonumber(ARGV[a + 2]) then retry = -1 else retry = math.ceil(after - horizon) end
  end
  rows[i] = { interval, horizon, tat, after, retry, cost }
end

local reply = { allowed, now + EPOCH_US }
for i = 1, #KEYS do
  local interval, horizon, tat, after, retry, cost = unpack(rows[i])
  if allowed == 1 then
    tat = after
    if cost > 0 then
      local ttl_ms = math.ceil((tat - now) / 1000) + 1
      redis.call('SET', KEYS[i], string.format('%.17g', tat), 'PX', string.format('%d', ttl_ms))
    end
  end
  local free = horizon - tat
  local remaining = 0
  if free > 0 then remaining = math.floor(free / interval) end
  local next_us = math.ceil((remaining + 1) * interval - free)
  if tat <= now then next_us = 0 end
  local base = 4 * i - 1
  reply[base] = remaining
  reply[base + 1] = next_us
  reply[base + 2] = math.ceil(tat - now)
  reply[base + 3] = retry
end
return reply
