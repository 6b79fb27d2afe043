-- idem_begin: claims a key, or says what is recorded under it. One atomic step; the same owner may repeat it.
-- Twin: policy/src/idempotency/record.rs (begin). gateway/tests/claims/differential.rs compares.
--
-- KEYS  1      the record
-- ARGV  1      now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2      who claims: 16 octets that are nobody else's
--       3      the request hash: 32 octets
--       4      how long the claim is locked, in µs
--       5      how long the record lives, in ms; longer than the lock
--       6      1 = a claim whose lock has ended is taken over; 0 = its outcome is unknown
-- Returns a list: 0 = this owner has given its claim back already (a begin that comes late); 1, fence = claimed; 2, wait_us =
--       in flight; 3, status, headers, body = done; 4 = the key was used for another request; 5 = the lock has ended and the
--       outcome is unknown; 6, status, headers = done, body not kept; 7, fence = claimed, taken over
-- Writes when it claims, which sets the expiry; and where a lock ends later than it may, since the clock has stepped back.
--
-- A record is one string, its numbers little-endian: format (1), state (1: 0 free, 1 in flight, 2 done, 3 done without
-- body), status (2), fence (7), the lock's end or when it was done in µs since 1970 (7), owner (16), request hash (32, zeros
-- if unknown), length of the headers (4), the headers, the body. While it is in flight there are neither, and where their length
-- would stand it says for how many ms the claim was locked, rounded up; 0 if an older gateway wrote it.
-- A record that is free or in flight ends with the owners that ended before their begins came, 16 octets each, the last
-- one first, 7 at most: each of them claims nothing any more.
local HEAD, HEAD_LEN = '<BBI2I7I7c16c32I4', 70
local ENDED_MAX_LEN = 7 * 16
local FREE, IN_FLIGHT, DONE_WITHOUT_BODY = 0, 1, 3
local call = redis.call

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

local owner, asked = ARGV[2], ARGV[3]
local function claim(code, fence, ended)
  local record = struct.pack(HEAD, 1, IN_FLIGHT, 0, fence, now + ARGV[4], owner, asked, math.ceil(ARGV[4] / 1000))
  call('SET', KEYS[1], record .. ended:sub(1, ENDED_MAX_LEN), 'PX', ARGV[5])
  return { code, fence }
end

local head = call('GETRANGE', KEYS[1], 0, HEAD_LEN + ENDED_MAX_LEN - 1)
if head == '' then return claim(1, 1, '') end
if #head < HEAD_LEN or head:byte(1) ~= 1 or head:byte(2) > 3 then
  return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no record')
end
local _, state, status, fence, moment, held, hash, headers_len = struct.unpack(HEAD, head)
if hash ~= asked and hash ~= string.rep('\0', 32) then return { 4 } end

local ended = head:sub(HEAD_LEN + 1)
if state == FREE then ended = held .. ended end
if state == FREE or state == IN_FLIGHT then
  for at = 1, #ended, 16 do
    if ended:sub(at, at + 15) == owner then return { 0 } end
  end
end
if state == FREE then return claim(1, fence + 1, ended) end
if state == IN_FLIGHT then
  if held == owner then return claim(1, fence, ended) end
  -- More is left of the lock than there ever was. It is counted anew, and whole: it began before now, so that nobody is let
  -- in before it would have ended, by whichever clock; and by its owner's length, not by that of whoever asks.
  local whole = headers_len * 1000
  if whole > 0 and moment - now > whole then
    moment = now + whole
    local cut = struct.pack(HEAD, 1, IN_FLIGHT, 0, fence, moment, held, hash, headers_len)
    call('SET', KEYS[1], cut .. ended, 'KEEPTTL')
  end
  if moment > now then return { 2, moment - now } end
  if ARGV[6] == '1' then return claim(7, fence + 1, ended) end
  return { 5 }
end
local headers_end = HEAD_LEN + headers_len
if call('STRLEN', KEYS[1]) < headers_end then
  return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no whole record')
end
local headers = headers_len > 0 and call('GETRANGE', KEYS[1], HEAD_LEN, headers_end - 1) or ''
if state == DONE_WITHOUT_BODY then return { 6, status, headers } end
return { 3, status, headers, call('GETRANGE', KEYS[1], headers_end, -1) }
