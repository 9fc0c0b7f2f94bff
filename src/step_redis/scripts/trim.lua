-- Remove a page of entries that exceed a limit and that every group has acknowledged.
--
-- KEYS[1] the stream
-- ARGV[1] how many of the latest entries are within the limit, or ''
-- ARGV[2] how old entries within the limit are (ms), or ''; their ids say when they were written
-- ARGV[3] where the page begins: '-', or '(id' after an id
-- ARGV[4] how many entries before the page exceed the limit and were kept
-- ARGV[5] how many entries a page has
-- ARGV[6] groups that begin with this read nothing new: what they have not received is none of theirs
--
-- Returns {'OK', removed, kept, where the next page begins or '', {group, consumer or '', id, age
-- (ms)}, ...}: for each group the first entry of the page that it holds back, and who has it; ''
-- if the group has not received it. Behind such an entry there is nothing to remove, so that there
-- is no next page.
-- include errors.lua
-- include order.lua
local stream = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local length = redis.pcall('XLEN', stream)
if type(length) == 'table' then return failed(length) end
local result = {'OK', 0, 0, ''}
if length == 0 then return result end

local over = ARGV[1] == '' and 0 or length - ARGV[1] - ARGV[4]
local oldest = ARGV[2] == '' and 0 or now - ARGV[2]
local page, is_last = {}, false
for at, entry in ipairs(redis.call('XRANGE', stream, ARGV[3], '+', 'COUNT', ARGV[5])) do
  local written = tonumber(string.match(entry[1], '%d+'))
  if at > over and written >= oldest then
    is_last = true
    break
  end
  page[#page + 1] = entry[1]
end
if #page == 0 then return result end
local first, final = page[1], page[#page]
is_last = is_last or #page < tonumber(ARGV[5])

local held = {}
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local about, owner = {}, {}
  for at = 1, #info, 2 do about[info[at]] = info[at + 1] end
  local group, from = about['name'], first
  while from do
    local rows = redis.call('XPENDING', stream, group, from, final, ARGV[5])
    for _, row in ipairs(rows) do owner[row[1]] = row[2] end
    from = #rows == tonumber(ARGV[5]) and '(' .. rows[#rows][1]
  end
  local last, is_told = about['last-delivered-id'], false
  local has_unread = string.sub(group, 1, #ARGV[6]) ~= ARGV[6] and is_above(final, last)
  for _, id in ipairs(page) do
    if owner[id] or (has_unread and is_above(id, last)) then
      held[id] = true
      if not is_told then
        result[#result + 1] = {group, owner[id] or '', id, now - string.match(id, '%d+')}
        is_told = true
      end
    end
  end
  is_last = is_last or has_unread
end

local doomed = {}
for _, id in ipairs(page) do
  if not held[id] then doomed[#doomed + 1] = id end
end
if #doomed > 0 then
  local removed = redis.pcall('XDEL', stream, unpack(doomed))
  if type(removed) == 'table' then return failed(removed) end
  result[2] = removed
end
result[3] = #page - #doomed
if not is_last then result[4] = '(' .. final end
return result
