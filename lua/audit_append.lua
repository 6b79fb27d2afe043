-- audit_append: puts records at the end of a chain, all or none, if it ends where the caller believes. One atomic step.
-- Twin: policy/src/audit/append.rs. gateway/tests/audit_append.rs compares.
--
-- KEYS  1      the chain's head: a hash of seq, hash, seg (the segment of the last record), seg_first (its first number)
--       2      the list of the segment that the records go into
--       3..    the ids of that segment, then of earlier ones: hashes of id -> seq. All keys lie in one slot
-- ARGV  1 2 3  where the chain is believed to end: seq, hash, seg
--       4      the segment that the records go into: seg, or the one after it
--       5      the hash of the last of the records
--       6..    id and bytes of each record
-- Returns {1, seq, hash, seg, seg_first}      appended; where the chain ends now
--         {0, seq, hash, seg, seg_first}      nothing done: it ends elsewhere, there
--         {2, seq, hash, seg, seg_first, i…}  nothing done: the i-th records (from 1) hold ids that are in the chain
-- Ids come first: an append whose reply was lost is found by them although the chain has moved. Safe to repeat.
-- Numbers stay texts where they are only compared: Lua would write large ones with an exponent.
local GENESIS = string.rep('0', 64)
local call = redis.call

local head = call('HMGET', KEYS[1], 'seq', 'hash', 'seg', 'seg_first')
if not head[1] then
  if head[2] or head[3] or head[4] then return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no head') end
  head = { '0', GENESIS, '0', '1' }
elseif not (head[2] and head[3] and head[4]) then
  return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no head')
end

local ids, records = {}, {}
for i = 6, #ARGV, 2 do
  ids[#ids + 1], records[#records + 1] = ARGV[i], ARGV[i + 1]
end

local twice = {}
for k = 3, #KEYS do
  for i, seq in ipairs(call('HMGET', KEYS[k], unpack(ids))) do
    if seq then twice[i] = true end
  end
end
local reply = { 2, head[1], head[2], head[3], head[4] }
for i = 1, #ids do
  if twice[i] then reply[#reply + 1] = i end
end
if #reply > 5 then return reply end

if head[1] ~= ARGV[1] or head[2] ~= ARGV[2] or head[3] ~= ARGV[3] then
  reply[1] = 0
  return reply
end

local seq, first = tonumber(head[1]), head[4]
if ARGV[4] ~= head[3] then first = string.format('%.0f', seq + 1) end
local numbered = {}
for i, id in ipairs(ids) do
  numbered[2 * i - 1], numbered[2 * i] = id, string.format('%.0f', seq + i)
end
local last = string.format('%.0f', seq + #ids)
call('RPUSH', KEYS[2], unpack(records))
call('HSET', KEYS[3], unpack(numbered))
call('HSET', KEYS[1], 'seq', last, 'hash', ARGV[5], 'seg', ARGV[4], 'seg_first', first)
return { 1, last, ARGV[5], ARGV[4], first }
