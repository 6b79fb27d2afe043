-- rl_settle: charges limits more, or gives back, after a decision; each at most once per decision. One atomic step.
-- Twin: policy/src/limit.rs (settle). Same doubles, same order of operations; gateway/tests/differential.rs compares.
--
-- KEYS  1..n    the limits, as in rl_check
--       n+1..2n one per limit: present once this decision was settled there
--       2n+1..3n one per limit: what was given back there lately, and when it was reset (see below)
--       3n+1..  the marks of their shards, as in rl_check
--       Or the limits alone, while their slot moves and they lie apart from the rest: whoever calls has noted before that they are
--       settled. Nothing is given back then: nobody could be told.
-- ARGV  1      now in µs since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2      how long a region is cold after its mark, in µs
--       3      how long a decision is remembered as settled, in ms
--       4..n+3 per limit, packed as <BBBdddddddd: algorithm (103 g: gcra, 119 w: window), number of its mark, whether it is known that
--              the decision charged by the cold numbers (1), by (above 0 charges more, below 0 gives back), the decision's
--              age in µs at most, when it charged and the arrival time that it wrote at least, in µs since 2024 (0 and 0 if nobody
--              knows), x, y, and x and y of a cold region; of a window also exponent and slot, and of mark 255 what it says, as in rl_check
-- Returns one integer per limit: 1 = done now, 0 = had been done before
-- Never denies. Charging more leads at most one burst (of a window, one limit) into debt. What may have come back by
-- itself since the charge is not given back: it would be there twice. Nor is anything of a charge that may be older than its region on
-- this server or than the limit's reset: what is there now is others'. Each write sets its own expiry.
--
-- What was given back of a gcra limit within ARGV[3] is kept beside it, up to 32 times <ddd: when it was charged, at the earliest, when
-- it was given back, at the latest, and how much, in µs. Before them stands what rl_reset left there, if it did: until when that is kept,
-- when it was, and infinity. Why: docs/decisions/0099-refunds.md.
local EPOCH_US = 1704067200000000
local GROUP = { '<BI1', '<BI2', '<BI3', '<BI4' }
local call, floor, ceil, read = redis.call, math.floor, math.ceil, struct.unpack

local now = ARGV[1]
if now == '0' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2] - EPOCH_US
else
  now = now - EPOCH_US
end

local n = #ARGV - 3
local apart = #KEYS == n
local left, began = {}, {}
for i = 3 * n + 1, #KEYS do
  local start = tonumber(call('GET', KEYS[i]) or now)
  if not start or start ~= start then return redis.error_reply('TGSTATE ' .. KEYS[i] .. ' holds no time') end
  if start > now then
    start = now
    call('SET', KEYS[i], now)
  end
  began[i - 3 * n], left[i - 3 * n] = start, start + ARGV[2] - now
end

-- All are read before any is written, so that what cannot be read leaves everything as it was.
local held, grants, lately = {}, {}, {}
for i = 1, n do
  local stored = call('GET', KEYS[i])
  if stored and #stored > 11 and stored:byte() == 255 then
    local units, till = read('<I4I7', stored, 2)
    if till > now then grants[KEYS[i]] = { units, till } end
    stored = stored:sub(13)
  end
  local gcra = read('<B', ARGV[i + 3]) == 103
  local sound = not stored or (gcra and (#stored == 9 or #stored == 8)) or (not gcra and stored == '')
  if not sound and gcra then sound = #stored >= 46 and (#stored - 46) % 21 == 0 and stored:byte() == 254 end
  if not sound and not gcra then sound = #stored >= 7 and (#stored - 7) % (2 + read('<B', stored) % 4) == 0 end
  if not sound then return redis.error_reply('TGSTATE ' .. KEYS[i] .. ' holds no limit') end
  held[i] = stored
  if apart and read('<d', ARGV[i + 3], 4) < 0 then
    return redis.error_reply('TGSTATE ' .. KEYS[i] .. ' lies apart from what was given back of it')
  end
  lately[i] = not apart and call('GET', KEYS[2 * n + i]) or ''
end

-- A grant (see rl_grant) stays as it is.
local function save(key, value, left_us)
  local grant = grants[key]
  if grant then value, left_us = struct.pack('<BI4I7', 255, grant[1], grant[2]) .. value, math.max(left_us, grant[2] - now) end
  call('SET', key, value, 'PX', ceil(left_us / 1000) + 1)
end

-- What is leased raises the arrival time, as in rl_check.
local function leased(stored, tat, x, most)
  local fin, u0, u1, span = read('<dddI4', stored, 11)
  local over = fin + span
  local kept = over + math.min((u0 + u1) * x, most)
  if now >= fin then
    tat = math.max(tat, fin + math.min((u0 + u1) * x, most))
    u0, u1 = 0, u0
    if now >= over then
      tat = math.max(tat, over + math.min(u1 * x, most))
      u1 = 0
    end
  end
  return math.max(tat, now + math.min((u0 + u1) * x, most)), over, kept
end

-- What is still remembered of it, in order; and the reset.
local remembered = ARGV[3] * 1000
local function refunds_of(text)
  local refunds, reset = {}, nil
  for at = 1, #text - 23, 24 do
    local charged, given, back = read('<ddd', text, at)
    if back == math.huge then
      if charged > now then reset = { charged, given, back } end
    elseif given + remembered > now then refunds[#refunds + 1] = { charged, given, back } end
  end
  return refunds, reset
end

-- Whether the charge may be of before what is there now began.
local function is_forgotten(age, start, reset)
  return now - age < (start or 0) or reset and now - age <= reset[2]
end

-- How much of a charge is to be given back: all, if the bucket could not have been full without it since; less what may have come back.
local function back_of(refunds, tat, cost, age, at, full, has_leases)
  local back = cost - age
  if at <= 0 or at > now or at + remembered <= now or has_leases then return back end
  -- What was charged before it and given back since was in the arrival time that it wrote, and is no more.
  for _, refund in ipairs(refunds) do
    if refund[2] > now then return back end
    if refund[1] <= at and refund[2] >= at then full = full - refund[3] end
  end
  -- The charge was forgotten, and what is there now is others'.
  if tat < full then return 0 end
  return math.max(back, math.min(cost, full - now))
end

-- If they are too many the older half is remembered by twos, as if both had been there as long as either.
local function remember(key, refunds, reset, charged, back)
  refunds[#refunds + 1] = { charged, now, back }
  local text, older, keep = {}, #refunds > 32 and 16 or 0, remembered
  if reset then text[1], keep = struct.pack('<ddd', unpack(reset)), math.max(keep, reset[1] - now) end
  for i = 2, older, 2 do
    local one, two = refunds[i - 1], refunds[i]
    text[#text + 1] = struct.pack('<ddd', math.min(one[1], two[1]), math.max(one[2], two[2]), one[3] + two[3])
  end
  for i = older + 1, #refunds do text[#text + 1] = struct.pack('<ddd', unpack(refunds[i])) end
  call('SET', key, table.concat(text), 'PX', ceil(keep / 1000))
end

-- The reach as in rl_check.
local function settle_gcra(i, stored, by, age, at, full, start, x, y, warm_y)
  local key = KEYS[i]
  if not stored and by < 0 then return end
  local has_leases = stored and #stored > 9
  local tat, reach = now, 0
  if has_leases then reach, tat = read('<Bd', stored, 2)
  elseif stored and #stored == 9 then tat, reach = read('<dB', stored)
  elseif stored then tat = read('<d', stored) end
  local _, own = math.frexp(math.max(y, warm_y))
  local floored, ends, kept = tat, 0, 0
  if has_leases then
    local most = reach == 0 and math.huge or reach > own and 2 ^ reach or math.max(y, warm_y)
    floored, ends, kept = leased(stored, math.max(tat, now), x, most)
  end
  if by > 0 then
    tat = math.max(floored, now)
    if tat <= now then reach = own end
    local ceiling = math.max(now + y + y, now + warm_y + warm_y)
    local honest = reach == 0 and math.huge or reach > own and now + 2 ^ (reach + 1) or ceiling
    local most = math.max(math.min(tat, honest), ceiling)
    tat, reach = math.min(tat + by * x, most), math.max(reach, own)
  else
    -- Nothing raises it later any more.
    if now >= ends then tat = floored end
    local known_at = at > 0 and at <= now
    if known_at then age = now - at end
    local refunds, reset = refunds_of(lately[i])
    if is_forgotten(age, start, reset) then return end
    local back = back_of(refunds, tat, -by * x, age, at, full, now < ends)
    if back <= 0 or tat <= now then return end
    back = math.min(back, tat - now)
    tat = tat - back
    remember(KEYS[2 * n + i], refunds, reset, known_at and at or now - age, back)
  end
  local value, over = struct.pack('<d', tat), tat
  if reach > 0 then value = value .. string.char(reach) end
  if now < ends then value, over = struct.pack('<BBd', 254, reach, tat) .. stored:sub(11), math.max(tat, kept) end
  save(key, value, over - now)
end

local function settle_window(i, stored, by, age, at, start, limit, period, exponent, slot)
  local key = KEYS[i]
  if at > 0 and at <= now then age = now - at end
  if by < 0 then
    local _, reset = refunds_of(lately[i])
    if age >= period or is_forgotten(age, start, reset) then return end
  end
  local tick = 2 ^ exponent
  local newest = now - now % tick + tick - 1
  local lasts, units, used, slots = {}, {}, 0, 0
  local function add(last, count)
    if slots == 0 or floor(lasts[slots] / slot) ~= floor(last / slot) then
      slots = slots + 1
      units[slots] = 0
    end
    lasts[slots], units[slots], used = last, units[slots] + count, used + count
  end
  if stored and stored ~= '' then
    local code, base = read('<BI6', stored)
    local then_tick, size = 2 ^ floor(code / 4), 2 + code % 4
    for at = 8, #stored, size do
      local age_ticks, count = read(GROUP[size - 1], stored, at)
      local last = (base - age_ticks) * then_tick + then_tick - 1
      last = math.min(last - last % tick + tick - 1, newest)
      if last + period > now then add(last, count) end
    end
  end
  if by > 0 then
    local more = math.min(by, 2 * limit - used)
    if more <= 0 then return end
    add(newest, more)
  else
    local back = -by
    for s = 1, slots do
      if lasts[s] + age >= now then
        local given = math.min(units[s], back)
        units[s], back = units[s] - given, back - given
      end
    end
    if back == -by then return end
  end
  local left, most = {}, 0
  for s = 1, slots do
    if units[s] > 0 then left[#left + 1] = s end
    most = math.max(most, units[s])
  end
  if #left == 0 then
    save(key, '', period)
    return
  end
  local last = lasts[left[#left]]
  local width = most < 256 and 1 or most < 65536 and 2 or most < 16777216 and 3 or 4
  local packed = { struct.pack('<BI6', exponent * 4 + width - 1, floor(last / tick)) }
  for _, s in ipairs(left) do
    packed[#packed + 1] = struct.pack(GROUP[width], (last - lasts[s]) / tick, units[s])
  end
  save(key, table.concat(packed), last + period - now)
end

local reply = {}
for i = 1, n do
  local algorithm, mark, was_cold, by, age, at, full, x, y, cold_x, cold_y = read('<BBBdddddddd', ARGV[i + 3])
  local exponent, slot
  if algorithm == 119 then exponent, slot = read('<Bd', ARGV[i + 3], 68) end
  local cold_left = left[mark] or 0
  if mark == 255 then cold_left = math.min(read('<d', ARGV[i + 3], #ARGV[i + 3] - 7), now) + ARGV[2] - now end
  local cold = cold_left > 0
  -- What is given back is counted as it was charged, what is charged as it is now.
  if algorithm == 103 and by < 0 then cold = was_cold == 1 end
  local warm_y = y
  if cold then x, y = cold_x, cold_y end
  local first = apart or call('SET', KEYS[n + i], '1', 'PX', ARGV[3], 'NX')
  if first and algorithm == 103 then
    settle_gcra(i, held[i], by, age, at, full, began[mark], x, y, warm_y)
  elseif first then
    settle_window(i, held[i], by, age, at, began[mark], x, y, exponent, slot)
  end
  reply[i] = first and 1 or 0
end
return reply
