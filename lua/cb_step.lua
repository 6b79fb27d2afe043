-- cb_step: one step of one breaker: a look, a process's report (with a test's end, and asking for a test), or an operator's order.
-- Twin: policy/src/breaker/mesh/step.rs (step). gateway/tests/breakers compares. Whole numbers below 2^53 throughout.
--
-- KEYS  1      the record
-- ARGV  1      now in ms since 1970-01-01, or 0 for the server's TIME (only tests give another value)
--       2      0 = look, 1 = report, 2 = order
--       3      entropy, 0 to 2^20 - 1
--  report 4..12  window in ms (0 = by count), window in calls, min_calls, failures and slow calls of 1,000 that open (0 = never),
--                open_ms, doublings of back-off, successes that close, probe_ms
--       13     how many processes that tripped by themselves open it
--       14, 15 the process (8 octets), the number of its report
--       16..20 epoch of the counts, calls, failures, slow calls, tripped (1/0)
--       21, 22 the number of the test that ended (0 = none), 1 = ok, 2 = failed, 3 = given back
--       23     1 = wants a test
--       24, 25 adaptive: fewer failures of 1,000 calls never are unusual (0 = not adaptive), over how many ms it learns what is usual
--  order 4, 5  1 = trip, 2 = reset, 3 = force open, 4 = disable, 5 = metrics only; for how many ms (0 = without end)
-- Returns flat integers: state (0 closed, 1 open, 2 half open, 3 forced open, 4 disabled, 5 metrics only), epoch, wait_ms (-1 =
--       none), ms since good tests closed it (-1 = they did not), counted (1/0), the test's end was taken (1/0), the test that may
--       be made (0 = none), its ms, why it would have opened (0 = not), calls, failures, slow calls, trips, successes, 1 = there was no
--       record, what is usual (calls, failures, in thousandths), then for each transition: from, to, cause (by the order of Cause in the twin, from 1)
-- Safe to repeat: a report's number counts once, a test's end once, and who has the test gets the same again. An order is
-- repeated by its new epoch only. Each write sets the expiry, or none for an operator's state without end.
local HEAD, BUCKET, REPORTER, USUAL = '<BBI6I6I6BBBBI6I6c8I6BB', '<I6I4I4I4', '<c8I6I6B', '<I6I6'
local HEAD_LEN, BUCKET_LEN, REPORTER_LEN, USUAL_LEN = 52, 18, 21, 12
local CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, DISABLED, METRICS_ONLY = 0, 1, 2, 3, 4, 5
local FAILURES, SLOW, REPORTERS, PROBE_FAILED, PROBES_LOST, WAIT_OVER, PROBES_SUCCEEDED, OPERATOR, EXPIRED, UNUSUAL = 1, 2, 3, 4, 5, 6, 7, 8, 9,
  10
local NOBODY = string.rep('\0', 8)
local floor, min, max, call = math.floor, math.min, math.max, redis.call

local arg = {}
for i = 1, #ARGV do arg[i] = i == 14 and ARGV[i] or tonumber(ARGV[i]) end
local now, entropy = arg[1], arg[3]
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

local r = { state = CLOSED, epoch = now, since = now, until_ = 0, trips = 0, successes = 0, lost = 0, healed = 0,
  probe = 0, probe_until = 0, holder = NOBODY, last = 0, calls = 0, failures = 0 }
local buckets, reporters = {}, {}
local held = call('GET', KEYS[1])
if held then
  local format, nb, nr
  if #held >= HEAD_LEN and (held:byte(1) == 1 or held:byte(1) == 2) and held:byte(2) <= 5 then
    format, r.state, r.epoch, r.since, r.until_, r.trips, r.successes, r.lost, r.healed, r.probe, r.probe_until, r.holder, r.last, nb, nr =
      struct.unpack(HEAD, held)
  end
  if not nb or #held ~= HEAD_LEN + nb * BUCKET_LEN + nr * REPORTER_LEN + (format - 1) * USUAL_LEN then
    return redis.error_reply('TGSTATE ' .. KEYS[1] .. ' holds no breaker')
  end
  local at = HEAD_LEN + 1
  for i = 1, nb do
    local number, calls, failures, slow
    number, calls, failures, slow, at = struct.unpack(BUCKET, held, at)
    buckets[i] = { number, calls, failures, slow }
  end
  for i = 1, nr do
    local who, seq, seen, tripped
    who, seq, seen, tripped, at = struct.unpack(REPORTER, held, at)
    reporters[i] = { who, seq, seen, tripped }
  end
  if format == 2 then r.calls, r.failures = struct.unpack(USUAL, held, at) end
end

local flips = {}
local function enter(to, cause)
  flips[#flips + 1] = { r.state, to, cause, max(now - r.since, 0) }
  r.state, r.epoch, r.since, r.until_ = to, max(r.epoch + 1, now), now, 0
  r.successes, r.lost, r.healed, r.probe, r.probe_until, r.holder = 0, 0, 0, 0, 0, NOBODY
  buckets = {}
  for _, reporter in ipairs(reporters) do reporter[4] = 0 end
end
local function jittered(open_ms)
  return floor(open_ms * 4 / 5) + floor(floor(open_ms * 2 / 5) * entropy / 1048576)
end
local function open(cause)
  local open_ms = arg[9] * 2 ^ min(r.trips, arg[10], 5)
  if cause ~= PROBES_LOST then r.trips = min(r.trips + 1, 255) end
  enter(OPEN, cause)
  r.until_ = now + jittered(open_ms)
end

-- What time alone does. A look writes that the clock went back, or whoever looks again and again would be told the same wait each time.
local behind = r.since > now
if behind then
  if r.until_ > 0 then r.until_ = now + max(r.until_ - r.since, 0) end
  r.since = now
end
for _, reporter in ipairs(reporters) do reporter[3] = min(reporter[3], now) end
if r.until_ > 0 and now >= r.until_ then
  if r.state == FORCED_OPEN then
    enter(OPEN, EXPIRED)
    r.until_ = now
  elseif r.state == DISABLED or r.state == METRICS_ONLY then
    enter(CLOSED, EXPIRED)
  end
end

local counted, settled, permit, permit_ms, would = 0, 0, 0, 0, 0
local function sums()
  local calls, failures, slow = 0, 0, 0
  for _, bucket in ipairs(buckets) do
    calls, failures, slow = calls + bucket[2], failures + bucket[3], slow + bucket[4]
  end
  return calls, failures, slow
end

local function settle()
  local id, ended = arg[21], arg[22]
  if id == 0 or r.state ~= HALF_OPEN or r.probe ~= id or now >= r.probe_until then return end
  settled = 1
  if ended == 2 then return open(PROBE_FAILED) end
  r.probe, r.probe_until, r.holder = 0, 0, NOBODY
  if ended == 1 then
    r.lost, r.successes = 0, min(r.successes + 1, 255)
    if r.successes >= arg[11] then
      r.trips = 0
      enter(CLOSED, PROBES_SUCCEEDED)
      r.healed = 1
    end
  end
end

-- What is usual: see policy/src/breaker/mesh/usual.rs.
local function learn(calls, failures, part)
  local parts = max(floor(arg[25] / part), 1)
  r.calls = r.calls - floor(r.calls / parts) + calls * 1000
  r.failures = r.failures - floor(r.failures / parts) + min(failures, calls) * 1000
  while r.calls > 549755813887 do r.calls, r.failures = floor(r.calls / 2), floor(r.failures / 2) end
end
local function unusual(calls, failures)
  if r.calls < 1000000 or floor(r.calls / 1000) < calls then return false end
  local share = min(floor((r.failures * 10000 + r.calls - 1) / r.calls), 10000)
  local deviation = floor(math.sqrt(min(calls, 100000000) * share * (10000 - share)))
  return failures * 1000 >= calls * arg[24] and failures * 10000 > calls * share + 6 * deviation + 60000
end

local function judged()
  local calls, failures, slow = sums()
  if calls > 0 and calls >= arg[6] then
    if arg[7] > 0 and failures * 1000 >= calls * arg[7] then return FAILURES end
    if arg[8] > 0 and slow * 1000 >= calls * arg[8] then return SLOW end
    if arg[24] > 0 and unusual(calls, failures) then return UNUSUAL end
  end
  local tripped = 0
  for _, reporter in ipairs(reporters) do
    if reporter[3] + 5000 > now then tripped = tripped + reporter[4] end
  end
  if tripped >= max(min(arg[13], #reporters), 1) then return REPORTERS end
end

local function count()
  local holder, seq, batch_calls = arg[14], arg[15], arg[17]
  local current = not held or arg[16] == r.epoch
  local last_seq, was_tripped, kept = 0, 0, {}
  for _, reporter in ipairs(reporters) do
    if reporter[1] == holder then
      last_seq, was_tripped = reporter[2], reporter[4]
    elseif reporter[3] + 30000 > now then
      kept[#kept + 1] = reporter
    end
  end
  while #kept >= 64 do table.remove(kept, 1) end
  local new = seq > last_seq
  local tripped = was_tripped
  if new then tripped = current and arg[20] or 0 end
  kept[#kept + 1] = { holder, max(seq, last_seq), now, tripped }
  reporters = kept

  local by_time = arg[4] > 0
  local part = max(floor((by_time and arg[4] or arg[5]) / 10), 1)
  local number = by_time and floor(now / part) or 0
  if by_time then
    local live = {}
    local learns = arg[24] > 0 and (r.state == CLOSED or r.state == METRICS_ONLY)
    for _, bucket in ipairs(buckets) do
      if bucket[1] + 10 <= number then
        if learns then learn(bucket[2], bucket[3], part) end
      elseif bucket[1] <= number then
        live[#live + 1] = bucket
      end
    end
    buckets = live
  end
  if r.state == OPEN or r.state == HALF_OPEN or r.state == FORCED_OPEN then
    for _, reporter in ipairs(reporters) do reporter[4] = 0 end
    return
  end
  if new and current and batch_calls > 0 then
    counted = 1
    local last = buckets[#buckets]
    if not last or last[1] ~= number or not (by_time or last[2] < part) then
      last = { number, 0, 0, 0 }
      buckets[#buckets + 1] = last
    end
    for i = 2, 4 do last[i] = min(last[i] + arg[15 + i], 4294967295) end
    local function beyond()
      if #buckets > 11 then return true end
      if by_time or #buckets < 2 then return false end
      return sums() - buckets[1][2] >= arg[5]
    end
    while beyond() do table.remove(buckets, 1) end
  end
  local cause = judged()
  if cause and r.state == CLOSED then
    open(cause)
  elseif cause and r.state == METRICS_ONLY then
    would, buckets = cause, {}
    for _, reporter in ipairs(reporters) do reporter[4] = 0 end
  end
end

local function grant()
  r.last = max(r.last + 1, now)
  r.probe, r.holder, r.probe_until = r.last, arg[14], now + arg[12]
  permit, permit_ms = r.probe, arg[12]
end
local function ask()
  if r.state == OPEN and now >= r.until_ then
    enter(HALF_OPEN, WAIT_OVER)
    grant()
  elseif r.state == HALF_OPEN then
    if r.probe == 0 then
      grant()
    elseif now < r.probe_until then
      if r.holder == arg[14] then permit, permit_ms = r.probe, r.probe_until - now end
    elseif r.lost + 1 >= 3 then
      open(PROBES_LOST)
    else
      r.lost, r.successes = r.lost + 1, 0
      grant()
    end
  end
end

if arg[2] == 1 then
  if r.probe > 0 then r.probe_until = min(r.probe_until, now + arg[12]) end
  -- Who reports outlived a record that was lost under a clock that went back: it takes no word of an earlier epoch.
  if arg[16] > r.epoch and arg[16] <= now + 86400000 then r.epoch = arg[16] + 1 end
  settle()
  count()
  if arg[23] == 1 then ask() end
elseif arg[2] == 2 then
  local order, for_ms = arg[4], arg[5]
  local until_ = for_ms > 0 and now + for_ms or 0
  if order == 1 then
    r.trips = min(r.trips + 1, 255)
    enter(OPEN, OPERATOR)
    r.until_ = for_ms > 0 and until_ or now + jittered(10000)
  elseif order == 2 then
    r.trips, r.calls, r.failures = 0, 0, 0
    enter(CLOSED, OPERATOR)
  else
    enter(order, OPERATOR)
    r.until_ = until_
  end
end

if arg[2] ~= 0 or behind or #flips > 0 then
  local learnt = r.calls > 0 or r.failures > 0
  local parts = { struct.pack(HEAD, learnt and 2 or 1, r.state, r.epoch, r.since, r.until_, r.trips, r.successes, r.lost, r.healed, r.probe,
    r.probe_until, r.holder, r.last, #buckets, #reporters) }
  for _, b in ipairs(buckets) do parts[#parts + 1] = struct.pack(BUCKET, b[1], b[2], b[3], b[4]) end
  for _, p in ipairs(reporters) do parts[#parts + 1] = struct.pack(REPORTER, p[1], p[2], p[3], p[4]) end
  if learnt then parts[#parts + 1] = struct.pack(USUAL, r.calls, r.failures) end
  local record = table.concat(parts)
  if r.state >= FORCED_OPEN and r.until_ == 0 then
    call('SET', KEYS[1], record)
  else
    call('SET', KEYS[1], record, 'PX', 3600000 + max(r.until_ - now, 0))
  end
end

local left, wait = max(r.until_ - now, 0), -1
if r.state == OPEN then wait = left
elseif r.state == HALF_OPEN then wait = r.probe > 0 and max(r.probe_until - now, 0) or 0
elseif r.until_ > 0 then wait = left end
local healed = r.healed == 1 and r.state == CLOSED and now - r.since or -1
local calls, failures, slow = sums()
local reply = { r.state, r.epoch, wait, healed, counted, settled, permit, permit_ms, would, calls, failures, slow, r.trips, r.successes,
  held and 0 or 1, r.calls, r.failures }
for _, flip in ipairs(flips) do
  for i = 1, 4 do reply[#reply + 1] = flip[i] end
end
return reply
