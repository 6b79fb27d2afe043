-- audit_append: puts records at the end of a chain, all or none, if it ends where the caller believes. One atomic step.
-- Twin: policy/src/audit/append.rs. gateway/tests/audit_append.rs compares.
--
-- KEYS  1      the chain's head: a hash of seq, hash, seg (the segment of the last record), seg_first (its first number)
--       2      the list of the segment that the records go into
--       3..    the ids of that segment, then of earlier ones: hashes of id -> seq. All keys lie in one slot
-- ARGV  1 2 3  where the chain is believed to end: seq, hash, seg
--       4      the segment that the records go into: seg, or the one after it
--       5      the hash of the last of the records
--       6..    the id of each record, then the bytes of each
--       last   where there is one more: ' i:seq i:seq ', the i-th record's (from 1) event is not the record of that number
-- Returns {1, seq, hash, seg, seg_first}      appended; where the chain ends now
--         {0, seq, hash, seg, seg_first, r}   nothing done: it ends elsewhere, there, with the record r; r is '' where that
--                                             lies in another segment than ARGV[4]
--         {2, seq, hash, seg, seg_first, i, seq…}  nothing done: the i-th record's id is noted as that of record seq, which is
--                                             no later than the head; '0' where what is noted is no number
--         {3, seq, hash, seg, seg_first, n}   nothing done: the chain is torn, KEYS[2] holds n records and the head counts others
-- The head comes first, since most appends that are not done have lost a race: ids are looked up where it is the
-- expected one. Safe to repeat: an append whose reply was lost is found by its ids before anything is written.
-- A record's place in its list is its number less seg_first. Where the head was set back, or is gone, and the list kept its
-- records, that would not hold of what is pushed behind them. Only the records that lie there already are appended then: the
-- head goes on over them.
-- Numbers stay texts where they are only compared: Lua would write large ones with an exponent. Redis writes those
-- that it is handed with all their digits.
local GENESIS = string.rep('0', 64)
local call, ARGV = redis.call, ARGV

local head = call('HMGET', KEYS[1], 'seq', 'hash', 'seg', 'seg_first')
if not head[1] then
  if head[2] or head[3] or head[4] then return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no head') end
  head = { '0', GENESIS, '0', '1' }
elseif not (head[2] and head[3] and head[4]) then
  return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no head')
end

if head[1] ~= ARGV[1] or head[2] ~= ARGV[2] or head[3] ~= ARGV[3] then
  local last = head[3] == ARGV[4] and call('LRANGE', KEYS[2], -1, -1)[1] or ''
  return { 0, head[1], head[2], head[3], head[4], last }
end

local count = math.floor((#ARGV - 5) / 2)
local refuted = #ARGV > 5 + 2 * count and ARGV[#ARGV] or ''
local held, counted = call('LLEN', KEYS[2]), 0
if ARGV[4] == head[3] then counted = tonumber(head[1]) - tonumber(head[4]) + 1 end
local is_torn = held ~= counted
if is_torn then
  local is_there = counted >= 0 and held >= counted + count
  local there = is_there and call('LRANGE', KEYS[2], counted, counted + count - 1) or {}
  for i = 1, count do is_there = is_there and there[i] == ARGV[5 + count + i] end
  if not is_there then return { 3, head[1], head[2], head[3], head[4], held } end
end

local reply = { 2, head[1], head[2], head[3], head[4] }
-- Of records that are there the ids are, too.
for k = is_torn and #KEYS + 1 or 3, #KEYS do
  local seqs = call('HMGET', KEYS[k], unpack(ARGV, 6, 5 + count))
  for i = 1, count do
    if seqs[i] then
      local seq = #seqs[i] < 17 and string.match(seqs[i], '^[1-9]%d*$') or '0'
      -- No record of this chain has a number that is still to come: it was cut off, or never was.
      local is_past = tonumber(seq) <= tonumber(head[1])
      if is_past and not string.find(refuted, ' ' .. i .. ':' .. seq .. ' ', 1, true) then
        reply[#reply + 1] = i
        reply[#reply + 1] = seq
      end
    end
  end
end
if #reply > 5 then return reply end

local seq, first = tonumber(head[1]), head[4]
if ARGV[4] ~= head[3] then first = string.format('%.0f', seq + 1) end
local numbered = {}
for i = 1, count do
  numbered[2 * i - 1], numbered[2 * i] = ARGV[5 + i], seq + i
end
local last = string.format('%.0f', seq + count)
if not is_torn then call('RPUSH', KEYS[2], unpack(ARGV, 6 + count, 5 + 2 * count)) end
call('HSET', KEYS[3], unpack(numbered))
call('HSET', KEYS[1], 'seq', last, 'hash', ARGV[5], 'seg', ARGV[4], 'seg_first', first)
return { 1, last, ARGV[5], ARGV[4], first }
