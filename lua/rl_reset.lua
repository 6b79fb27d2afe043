-- rl_reset: forgets what one limit counted, so that nothing of it is given back later. One atomic step.
-- Twin: policy/src/limit/refund.rs (Refunds::reset). gateway/tests/differential.rs compares.
--
-- KEYS  1  the limit, as in rl_check
--       2  what was given back there lately, as in rl_settle
--       Or that alone, while their slot moves and they lie apart: whoever calls deletes the limit then.
-- ARGV  1  now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2  for how long any charge of before might still be given back, in µs
-- Returns 1 if anything was forgotten, else 0. Safe to repeat.
local now = ARGV[1]
if now == '0' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
now = now - 1704067200000000
-- First, since a server without memory refuses it: then all stays as it was.
redis.call('SET', KEYS[2] or KEYS[1], struct.pack('<ddd', now + ARGV[2], now, math.huge), 'PX', math.ceil(ARGV[2] / 1000))
return KEYS[2] and redis.call('DEL', KEYS[1]) or 0
