-- Hand back what the caller holds, due at once, and remove it from the group.
--
-- ARGV[3] the ids whose handling was started, if any: their deliveries count as interrupted; those of
--         the others are taken back
--
-- Returns {'OK'}, or {'MORE'} if it takes another call. A caller without a lease ({'LOST'}) holds
-- nothing.
-- include group.lua
-- include fence.lua
local is_started, started, others = {}, {}, {}
for at = 3, #ARGV do is_started[ARGV[at]] = true end
for _, row in ipairs(pending(caller, 2 * PAGE)) do
  local list = is_started[row[1]] and started or others
  list[#list + 1] = row
end
park(started, now, 'interrupted')
park(others, now, 'unstarted')
if #pending(caller, 1) > 0 then return {'MORE'} end
redis.call('XGROUP', 'DELCONSUMER', stream, group, caller)
redis.call('ZREM', leases, caller)
return {'OK'}
