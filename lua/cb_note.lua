-- cb_note: notes that a breaker changed, among those of its region, so that others hear of it. One atomic step, safe to repeat.
-- Twin: none; what it keeps is a cache of the records' epochs.
--
-- KEYS  1      the region's breakers, a sorted set: the name by its epoch
-- ARGV  1      the breaker's name
--       2      its epoch
--       3      how many are kept: beyond that those go that did not change for longest
--       4      for how many ms the set is kept; gateways that read it see to it that it stays for longer
-- Returns 1 = noted, 0 = a newer epoch is there.
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
local newer = held and tonumber(held) > tonumber(ARGV[2])
if not newer then
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
end
-- Noted it is also where the user may not do this.
redis.pcall('PEXPIRE', KEYS[1], ARGV[4])
return newer and 0 or 1
