-- Acknowledge messages that the caller holds.
--
-- ARGV[3] '1' to remove the entries from the stream as well
-- ARGV[4] the ids; it takes least if they are in rising order
--
-- Returns {'OK', id, ...}: the ids that were not pending with the caller; they are left alone.
-- include group.lua
-- include fence.lua
local ids, mine, result = {}, {}, {'OK'}
for at = 4, #ARGV do ids[#ids + 1] = ARGV[at] end
local rows = owned(ids)
for _, id in ipairs(ids) do
  local list = rows[id] and mine or result
  list[#list + 1] = id
end
settle(mine, ARGV[3] == '1')
return result
