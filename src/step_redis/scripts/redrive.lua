-- Deliver dead letters again, in a group of their own on the dead-letter stream.
--
-- KEYS and ARGV[1], ARGV[2] as in group.lua: the dead-letter stream and the group for redriving
-- ARGV[3] how many of them at most, or -1
-- ARGV[4] the ids of dead letters
--
-- Returns {'OK', id, ...}: those that are on their way now; the others were so already, or are gone.
-- Each becomes pending with the reserved consumer, due now, as if it had never been delivered.
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '$')
-- include group.lua
local result = {'OK'}
local most = tonumber(ARGV[3])
for at = 4, #ARGV do
  if most >= 0 and #result > most then break end
  local id = ARGV[at]
  local is_pending = #redis.call('XPENDING', stream, group, id, id, 1) > 0
  if not is_pending and #redis.call('XRANGE', stream, id, id) > 0 then
    redis.call('XCLAIM', stream, group, PARKED, 0, id, 'RETRYCOUNT', 0, 'FORCE', 'JUSTID')
    redis.call('ZADD', due, now, id)
    result[#result + 1] = id
  end
end
keep(due)
return result
