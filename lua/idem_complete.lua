-- idem_complete: stores the answer of a claim. One atomic step; the same owner may repeat it.
-- Twin: policy/src/idempotency/record.rs (complete). gateway/tests/claims/differential.rs compares.
--
-- KEYS  1      the record
-- ARGV  1      now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2      whose claim: 16 octets
--       3      its fence
--       4      its request hash, 32 octets, in case that the record was lost
--       5      how long the record lives from now on, in ms
--       6      the status
--       7      1 = with the body; 0 = that is all, the body is not kept
--       8      the headers, packed as policy/src/idempotency/stored.rs does
--       9      the body, any octets; empty if it is not kept
-- Returns 1 = stored; 2 = this claim's answer had been stored before; 0 = the claim is another's by now, or was given back;
--       -1 = the record had been lost, and the answer was stored anew
-- Accepted also after the lock's end, as long as nobody took over. A write sets the expiry.
--
-- For the format of a record see idem_begin.
local HEAD, HEAD_LEN = '<BBI2I7I7c16c32I4', 70
local FREE, IN_FLIGHT, DONE, DONE_WITHOUT_BODY = 0, 1, 2, 3
local call = redis.call

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

local owner, fence, hash, stored = ARGV[2], tonumber(ARGV[3]), ARGV[4], -1
local head = call('GETRANGE', KEYS[1], 0, HEAD_LEN - 1)
if head ~= '' then
  if #head < HEAD_LEN or head:byte(1) ~= 1 or head:byte(2) > 3 then
    return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no record')
  end
  local _, state, _, held_fence, _, held, held_hash = struct.unpack(HEAD, head)
  if held ~= owner or held_fence ~= fence or state == FREE then return 0 end
  if state ~= IN_FLIGHT then return 2 end
  hash, stored = held_hash, 1
end
local state = ARGV[7] == '1' and DONE or DONE_WITHOUT_BODY
local packed = struct.pack(HEAD, 1, state, ARGV[6], fence, now, owner, hash, #ARGV[8])
call('SET', KEYS[1], packed .. ARGV[8] .. ARGV[9], 'PX', ARGV[5])
return stored
