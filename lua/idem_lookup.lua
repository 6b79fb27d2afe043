-- idem_lookup: says what is recorded under a key, and changes nothing.
-- Twin: policy/src/idempotency/record.rs (lookup). gateway/tests/claims/differential.rs compares.
--
-- KEYS  1      the record
-- ARGV  1      now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2      the request hash, 32 octets; empty for whoever may look at any record
--       3      1 = another system may have written there, in a format of its own; 0 = what is no record is an error
-- Returns a list as idem_begin does: 2, wait_us = in flight; 3, status, headers, body = done; 4 = used for another request;
--       5 = outcome unknown, also of what another system wrote; 6, status, headers = done, body not kept; 8 = nothing there
--
-- For the format of a record see idem_begin.
local HEAD, HEAD_LEN = '<BBI2I7I7c16c32I4', 70
local FREE, IN_FLIGHT, DONE_WITHOUT_BODY = 0, 1, 3
local call = redis.call

local now = tonumber(ARGV[1])
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end

if ARGV[3] == '1' then
  local kind = call('TYPE', KEYS[1]).ok
  if kind ~= 'string' and kind ~= 'none' then return { 5 } end
end
local head = call('GETRANGE', KEYS[1], 0, HEAD_LEN - 1)
if head == '' then return { 8 } end
if #head < HEAD_LEN or head:byte(1) ~= 1 or head:byte(2) > 3 then
  if ARGV[3] == '1' then return { 5 } end
  return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no record')
end
local _, state, status, _, moment, _, hash, headers_len = struct.unpack(HEAD, head)
if ARGV[2] ~= '' and hash ~= ARGV[2] and hash ~= string.rep('\0', 32) then return { 4 } end

if state == FREE then return { 8 } end
if state == IN_FLIGHT then
  if moment > now then
    -- As idem_begin counts it.
    local whole = headers_len > 0 and headers_len * 1000 or math.huge
    return { 2, math.min(moment - now, whole) }
  end
  return { 5 }
end
local headers_end = HEAD_LEN + headers_len
if call('STRLEN', KEYS[1]) < headers_end then
  return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no whole record')
end
local headers = headers_len > 0 and call('GETRANGE', KEYS[1], HEAD_LEN, headers_end - 1) or ''
if state == DONE_WITHOUT_BODY then return { 6, status, headers } end
return { 3, status, headers, call('GETRANGE', KEYS[1], headers_end, -1) }
