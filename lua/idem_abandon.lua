-- idem_abandon: gives a claim back, so that a retry runs. One atomic step; the same owner may repeat it.
-- Twin: policy/src/idempotency/record.rs (abandon). gateway/tests/claims/differential.rs compares.
--
-- KEYS  1      the record
-- ARGV  1      whose claim: 16 octets
--       2      its fence, or 0 if the answer to its begin never arrived
--       3      how long the end is remembered, in ms
-- Returns 1 = given back, now or before; 0 = the claim is another's, or done; -1 = there was none of this owner's
-- An end with fence 0 that meets no claim of its owner's is remembered, so that a begin of it that comes late claims nothing.
-- Request hash and fence stay, so that another request under the key is a conflict. A write sets the expiry.
--
-- For the format of a record see idem_begin.
local HEAD, HEAD_LEN = '<BBI2I7I7c16c32I4', 70
local ENDED_MAX_LEN = 7 * 16
local FREE, IN_FLIGHT = 0, 1
local call = redis.call

local owner, fence = ARGV[1], tonumber(ARGV[2])
local function free(code, kept_fence, hash, ended)
  local record = struct.pack(HEAD, 1, FREE, 0, kept_fence, 0, owner, hash, 0)
  call('SET', KEYS[1], record .. ended:sub(1, ENDED_MAX_LEN), 'PX', ARGV[3])
  return code
end

local head = call('GETRANGE', KEYS[1], 0, HEAD_LEN + ENDED_MAX_LEN - 1)
if head == '' then return free(-1, fence, string.rep('\0', 32), '') end
if #head < HEAD_LEN or head:byte(1) ~= 1 or head:byte(2) > 3 then
  return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no record')
end
local _, state, _, held_fence, _, held, hash = struct.unpack(HEAD, head)
local own = held == owner and (fence == 0 or fence == held_fence)
if state ~= FREE and state ~= IN_FLIGHT then return 0 end
local ended = head:sub(HEAD_LEN + 1)
if own then return state == FREE and 1 or free(1, held_fence, hash, ended) end
if fence ~= 0 then return 0 end
for at = 1, #ended, 16 do
  if ended:sub(at, at + 15) == owner then return state == FREE and 1 or 0 end
end
if state == FREE then return free(-1, held_fence, hash, held .. ended) end
call('SET', KEYS[1], head:sub(1, HEAD_LEN) .. (owner .. ended):sub(1, ENDED_MAX_LEN), 'KEEPTTL')
return 0
