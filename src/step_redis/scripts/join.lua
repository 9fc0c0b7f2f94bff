-- Take a lease under a fresh name, and move to it what older names of the caller hold.
--
-- ARGV[3] the lease (ms)
-- ARGV[4] the older names, if any; one of them must still be alive
--
-- Returns {'OK', {id, count, lost, interrupted, fields}, ...}: all that was moved; {'LOST'} if no older
-- name lives: nothing is changed then; {'GONE'} without stream or group.
-- In one step the older names end and everything that is pending with them gets the fresh name.
-- So whatever is still on its way under an older name changes nothing any more, and what is not
-- returned was settled before.
-- include group.lua
local names = {}
for at = 4, #ARGV do names[#names + 1] = ARGV[at] end
local may_join = #names == 0
for _, name in ipairs(names) do
  if alive(name) then may_join = true end
end
if not may_join then return {'LOST'} end

lease(caller, tonumber(ARGV[3]))
redis.call('XGROUP', 'CREATECONSUMER', stream, group, caller)
for _, name in ipairs(names) do
  redis.call('ZREM', leases, name)
  while true do
    local rows = pending(name, PAGE)
    if #rows == 0 then break end
    -- Moving is no delivery: it leaves when the messages were delivered.
    local by_idle = {}
    for _, row in ipairs(rows) do
      by_idle[row[3]] = by_idle[row[3]] or {}
      table.insert(by_idle[row[3]], row[1])
    end
    for idle, ids in pairs(by_idle) do give(ids, caller, nil, idle) end
  end
  redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
end

local result, from = {'OK'}, '-'
if #names == 0 then return result end
while true do
  local rows, deleted = pending(caller, PAGE, from), {}
  for _, row in ipairs(rows) do
    local entry = redis.call('XRANGE', stream, row[1], row[1])[1]
    if entry then
      result[#result + 1] = message(row[1], row[4], entry[2])
    else
      deleted[#deleted + 1] = row[1]
    end
    from = '(' .. row[1]
  end
  settle(deleted, false)
  if #rows < PAGE then return result end
end
