-- What every script of a consumer begins with: the clock, the group, its records.
--
-- KEYS[1] the stream
-- KEYS[2] leases: a sorted set, consumer -> when its lease ends (ms, by this server's clock)
-- KEYS[3] due times: a sorted set, id -> when a parked message is due (ms)
-- KEYS[4] attempts: a hash, id -> "first delivery (ms):lost deliveries:interrupted deliveries"
-- ARGV[1] the group
-- ARGV[2] the caller's name
--
-- Parked messages are pending with a reserved consumer. It lives and dies with the group: if it has
-- to be made, the group is new, and what the records say is about another one. They are deleted, so
-- that all older leases are void.
--
-- Ends the script with {'GONE'} if there is no such stream or group, with the server's error if it
-- takes no writes; nothing is changed then.
-- include errors.lua
local PARKED = '_step:parked'
local PAGE = 500
local stream, leases, due, attempts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, caller = ARGV[1], ARGV[2]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local made = redis.pcall('XGROUP', 'CREATECONSUMER', stream, group, PARKED)
if type(made) == 'table' then
  if string.find(made.err, 'NOGROUP', 1, true)
    or string.find(made.err, 'requires the key to exist', 1, true) then
    return {'GONE'}
  end
  return failed(made)
end
local is_new = made == 1
if is_new then redis.call('DEL', leases, due, attempts) end

local function alive(consumer)
  local ends = redis.call('ZSCORE', leases, consumer)
  return ends and tonumber(ends) > now
end

-- The record outlives every lease in it.
local function lease(consumer, lease_ms)
  redis.call('ZADD', leases, now + lease_ms, consumer)
  if redis.call('PTTL', leases) < 10 * lease_ms then redis.call('PEXPIRE', leases, 10 * lease_ms) end
end

-- A key beside the stream expires after it, and never if the stream does not.
local function keep(key)
  local left = redis.call('PTTL', stream)
  if left < 0 then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, left + 86400000) end
end

-- Rows of XPENDING, {id, consumer, idle, count}, of one consumer by id.
local function pending(consumer, limit, from)
  return redis.call('XPENDING', stream, group, from or '-', '+', limit, consumer)
end

-- Which of some ids are pending with the caller: id -> row. Ids in rising order are looked up at once,
-- as long as they are a good part of what the caller holds there; others one by one.
local function owned(ids)
  local rows, wanted, missing, from = {}, {}, #ids, ids[1]
  for _, id in ipairs(ids) do wanted[id] = true end
  while #ids > 2 and missing > 0 do
    local page, found = redis.call('XPENDING', stream, group, from, ids[#ids], #ids, caller), 0
    for _, row in ipairs(page) do
      if wanted[row[1]] then
        rows[row[1]] = row
        found = found + 1
      end
    end
    missing = missing - found
    if #page < #ids or found < #ids / 4 then break end
    from = '(' .. page[#page][1]
  end
  for _, id in ipairs(ids) do
    if not rows[id] then
      rows[id] = redis.call('XPENDING', stream, group, id, id, 1, caller)[1]
    end
  end
  return rows
end

-- Lua's stack takes some thousand values; a command gets so many ids at a time.
local function in_pages(ids, each)
  for first = 1, #ids, PAGE do
    local page = {}
    for at = first, math.min(first + PAGE - 1, #ids) do page[#page + 1] = ids[at] end
    each(page)
  end
end

-- What the attempts say of a message: when it was first delivered, or nil; how many deliveries ended
-- with their consumer's death, and how many because it was stopped.
local function attempt(id)
  local record = redis.call('HGET', attempts, id) or ''
  local first, lost, interrupted = string.match(record, '^(%d*):(%d+):(%d+)$')
  return tonumber(first), tonumber(lost) or 0, tonumber(interrupted) or 0
end

-- Acknowledge for good; `delete` removes the entries from the stream as well.
local function settle(ids, delete)
  in_pages(ids, function(page)
    redis.call('HDEL', attempts, unpack(page))
    if delete then redis.call('XDEL', stream, unpack(page)) end
    redis.call('XACK', stream, group, unpack(page))
  end)
end

-- Give pending messages to another consumer as they are, or with another count of deliveries, or
-- as if they had been delivered so many ms ago.
-- Returns the ids of those given. Since Redis 7 that leaves out those whose entries were deleted:
-- they are not pending any more, so nothing else of them may stay.
local function give(ids, consumer, count, idle)
  local given = {}
  in_pages(ids, function(page)
    local claim, dropped = {'XCLAIM', stream, group, consumer, 0}, {}
    for _, id in ipairs(page) do
      claim[#claim + 1] = id
      dropped[id] = true
    end
    if count then
      claim[#claim + 1] = 'RETRYCOUNT'
      claim[#claim + 1] = count
    end
    if idle then
      claim[#claim + 1] = 'IDLE'
      claim[#claim + 1] = idle
    end
    claim[#claim + 1] = 'JUSTID'
    for _, id in ipairs(redis.call(unpack(claim))) do
      given[#given + 1] = id
      dropped[id] = nil
    end
    for id in pairs(dropped) do redis.call('HDEL', attempts, id) end
  end)
  return given
end

-- Give pending messages, rows of XPENDING, to the reserved consumer until they are due.
-- kind: 'failed' counts the delivery, 'lost' and 'interrupted' count it apart, 'unstarted' takes it
-- back.
local function park(rows, due_at, kind)
  local by_count, delivered = {}, {}
  for _, row in ipairs(rows) do
    local count = kind == 'unstarted' and math.max(row[4] - 1, 0) or -1
    by_count[count] = by_count[count] or {}
    table.insert(by_count[count], row[1])
    delivered[row[1]] = now - row[3]
  end
  for count, ids in pairs(by_count) do
    for _, id in ipairs(give(ids, PARKED, count >= 0 and count or nil)) do
      redis.call('ZADD', due, due_at, id)
      if kind ~= 'unstarted' then
        local first, lost, interrupted = attempt(id)
        if kind == 'lost' then lost = lost + 1 end
        if kind == 'interrupted' then interrupted = interrupted + 1 end
        local record = string.format('%.0f:%.0f:%.0f', first or delivered[id], lost, interrupted)
        redis.call('HSET', attempts, id, record)
      end
    end
  end
  if #rows > 0 then
    keep(due)
    keep(attempts)
  end
end

-- A message as the caller gets it.
local function message(id, count, fields)
  local _, lost, interrupted = attempt(id)
  return {id, count, lost, interrupted, fields}
end
