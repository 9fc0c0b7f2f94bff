-- Remove a group, and what is kept beside the stream for it.
--
-- KEYS[1] the stream, then keys that belong to the group: first its leases (see group.lua), last its
--         checkpoint, KEYS[5], which is made anew if it is needed
-- KEYS[6] its dead-letter stream, then keys that belong to the group for redriving
-- ARGV[1] the group
-- ARGV[2] the group for redriving
--
-- Returns {'OK', 1 or 0 if there was no such group}; {'ALIVE', consumer, ...} if consumers with a
-- lease are at work in it: nothing is changed then.
-- include errors.lua
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local alive = {'ALIVE'}
-- The record holds also when the group is looked through next (see poll.lua).
for _, consumer in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. now, '+inf')) do
  if consumer ~= '~sweep' then alive[#alive + 1] = consumer end
end
if #alive > 1 then return alive end

-- Lua does not roll back: whoever may not delete the keys leaves the group alone.
local deleted = redis.pcall('DEL', KEYS[5])
if type(deleted) == 'table' then return failed(deleted) end
-- Without a stream there is no group.
local function destroy(stream, group)
  if redis.call('EXISTS', stream) == 0 then return 0 end
  return redis.pcall('XGROUP', 'DESTROY', stream, group)
end
local destroyed = destroy(KEYS[1], ARGV[1])
if type(destroyed) == 'table' then return failed(destroyed) end
destroy(KEYS[6], ARGV[2])
for at = 2, #KEYS do
  if at ~= 6 then redis.call('DEL', KEYS[at]) end
end
return {'OK', destroyed}
