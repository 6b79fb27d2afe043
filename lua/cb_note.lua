-- cb_note: notes that a breaker changed, among those of its region, so that others hear of it. One atomic step, safe to repeat.
-- Twin: gateway/src/store/memory/breakers.rs (note). gateway/tests/breakers compares.
--
-- KEYS  1      the region's breakers, a sorted set: the name by when it was noted
-- ARGV  1      the breaker's name
--       2      how many are kept: beyond that those go that did not change for longest. One whose name has no ':' is noted anew in place
--              of going, as long as there is one that has among the next few: an order for all of many stands under such a name,
--              nobody reports on it, and whoever begins later hears of it here alone
--       3      for how many ms the set is kept; gateways that read it see to it that it stays for longer
--       4      now in ms since 1970-01-01, or 0 for the server's TIME (only tests give another value)
-- Returns the number under which it is noted: the time, and above all that were noted before. Who has read up to a number misses
-- nothing that comes later, whatever a clock that went back says, or how far ahead an epoch is.
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local last = redis.pcall('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
-- Users of before may not do this: they read all that is not behind now, which is long only if the clock went back.
if last.err then last = redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf', 'WITHSCORES') end
local number = math.max(now, (tonumber(last[#last]) or 0) + 1)
redis.call('ZADD', KEYS[1], number, ARGV[1])
local oldest = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '+inf', 'LIMIT', 0, 8)
for i = 1, #oldest do
  if redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[2]) == 0 then break end
  if i == #oldest or oldest[i]:find(':', 1, true) then break end
  redis.call('ZADD', KEYS[1], number + i, oldest[i])
end
-- Noted it is also where the user may not do this.
redis.pcall('PEXPIRE', KEYS[1], ARGV[3])
return number
