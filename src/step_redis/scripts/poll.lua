-- Renew the caller's lease, take parked messages that are due and, once in a while for the whole
-- group, look for what dead consumers left.
--
-- KEYS[5] the checkpoint: '<id' if id is the lowest unsettled one, '=id' if all up to id is settled
-- KEYS[6] delayed messages (see publish_once.lua); both are left out for a group that needs none
-- ARGV[3] the lease (ms)
-- ARGV[4] how many due messages to take at most
-- ARGV[5] how often the group is looked through (ms)
-- ARGV[6] how many messages of dead consumers one look parks at most
-- ARGV[7] after how many idle ms messages are taken from consumers that have no lease because other
--         programs made them; -1 for never
--
-- Returns {'OK', ms until the next parked message is due or -1, messages parked that dead consumers
-- had, consumers removed, the lowest id that was pending with the caller or '', how many delayed
-- messages are due or -1 if that cannot be told, {id, count, lost, interrupted, fields}, ...}.
-- include group.lua
-- include fence.lua
lease(caller, tonumber(ARGV[3]))
local SWEEP = '~sweep'
local TOKEN = '~' .. string.rep('%x', 16) .. '$'
local parked, removed = 0, 0

local function by_idle(rows, idle_ms)
  local found = {}
  for _, row in ipairs(rows) do
    if row[3] >= idle_ms then found[#found + 1] = row end
  end
  return found
end

-- Parked messages whose due time was lost are due now. The record of attempts holds how far the
-- search has come, if it takes more than one look; returns whether it does.
local function mend_due_times()
  local from = redis.call('HGET', attempts, 'mended')
  local rows = pending(PARKED, 2 * PAGE, from and '(' .. from or '-')
  for _, row in ipairs(rows) do redis.call('ZADD', due, 'NX', now, row[1]) end
  if #rows < 2 * PAGE then
    redis.call('HDEL', attempts, 'mended')
    return false
  end
  redis.call('HSET', attempts, 'mended', rows[#rows][1])
  return true
end

local function note_checkpoint(lowest)
  local mark
  if lowest then
    mark = '<' .. lowest
  else
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local about = {}
      for at = 1, #info, 2 do about[info[at]] = info[at + 1] end
      if about['name'] == group then mark = '=' .. about['last-delivered-id'] end
    end
  end
  redis.call('SET', KEYS[5], mark)
  keep(KEYS[5])
end

local function sweep()
  local budget, waiting = tonumber(ARGV[6]), 0
  local foreign_ms = tonumber(ARGV[7])
  for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local name, count = info[2], info[4]
    if name == PARKED then
      waiting = waiting + count
    elseif string.find(name, TOKEN) then
      if not alive(name) then
        local rows = {}
        if count > 0 and budget > 0 then
          rows = pending(name, math.min(budget, 2 * PAGE))
          park(rows, now, 'lost')
          budget, parked = budget - #rows, parked + #rows
        end
        -- Removing a consumer drops what is pending with it.
        if #pending(name, 1) == 0 then
          redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
          redis.call('ZREM', leases, name)
          removed = removed + 1
        end
      end
    elseif foreign_ms >= 0 and count > 0 and budget > 0 then
      local rows = by_idle(pending(name, math.min(budget, PAGE)), foreign_ms)
      park(rows, now, 'lost')
      budget, parked = budget - #rows, parked + #rows
    end
  end
  local has_more, lowest = budget <= 0, redis.call('XPENDING', stream, group)[2]
  if not lowest then
    -- Whatever the records say is left from messages that other programs acknowledged.
    redis.call('DEL', due, attempts)
  elseif waiting + parked ~= redis.call('ZCARD', due) then
    has_more = mend_due_times() or has_more
  else
    redis.call('HDEL', attempts, 'mended')
  end
  keep(due)
  keep(attempts)
  if KEYS[5] then note_checkpoint(lowest) end
  redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
  -- While there is more, the next look comes soon.
  redis.call('ZADD', leases, now + (has_more and 50 or tonumber(ARGV[5])), SWEEP)
end

if not alive(SWEEP) then sweep() end

local lowest = pending(caller, 1)[1]
local result = {'OK', -1, parked, removed, lowest and lowest[1] or '', 0}
local ids = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, ARGV[4])
local claim, counts, gone = {'XCLAIM', stream, group, caller, 0}, {}, {}
for _, id in ipairs(ids) do
  local row = redis.call('XPENDING', stream, group, id, id, 1, PARKED)[1]
  if row then
    claim[#claim + 1] = id
    counts[id] = row[4] + 1
  end
end
if #claim > 5 then
  for _, entry in ipairs(redis.call(unpack(claim))) do
    -- Redis 6.2 returns nil for an entry that was deleted, later ones leave it out.
    if type(entry) == 'table' and type(entry[2]) == 'table' then
      result[#result + 1] = message(entry[1], counts[entry[1]], entry[2])
      counts[entry[1]] = nil
    end
  end
  for id in pairs(counts) do gone[#gone + 1] = id end
  settle(gone, false)
end
if #ids > 0 then redis.call('ZREM', due, unpack(ids)) end
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if first[2] then result[2] = math.max(0, tonumber(first[2]) - now) end
if KEYS[6] then
  -- What was taken above must not be lost over a key that is none of the group's.
  local count = redis.pcall('ZCOUNT', KEYS[6], '-inf', now)
  result[6] = type(count) == 'number' and count or -1
end
return result
