-- Put messages that the caller holds aside until they are due; then the group delivers them again.
--
-- ARGV[3] in how many ms they are due
-- ARGV[4] what becomes of their delivery: 'failed', 'lost', 'interrupted' or
--         'unstarted' (see `park`)
-- ARGV[5] the ids, in rising order
--
-- Returns {'OK', id, ...}: the ids that were not pending with the caller; they are left alone.
-- include group.lua
-- include fence.lua
local ids, mine, result = {}, {}, {'OK'}
for at = 5, #ARGV do ids[#ids + 1] = ARGV[at] end
local rows = owned(ids)
for _, id in ipairs(ids) do
  if rows[id] then
    mine[#mine + 1] = rows[id]
  else
    result[#result + 1] = id
  end
end
park(mine, now + tonumber(ARGV[3]), ARGV[4])
return result
