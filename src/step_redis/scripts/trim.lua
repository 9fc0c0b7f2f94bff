-- Remove a page of entries that exceed a limit and that every group has acknowledged.
--
-- KEYS[1] the stream
-- ARGV[1] how many of the latest entries are within the limit, or ''
-- ARGV[2] how old entries within the limit are (ms), or ''; their ids say when they were written
-- ARGV[3] where the page begins: '-', or '(id' after an id
-- ARGV[4] how many entries before the page exceed the limit and were kept
-- ARGV[5] how many entries a page has at most
-- ARGV[6] groups that begin with this read nothing new: what they have not received is none of theirs
--
-- At the beginning of the stream it first removes some thousand entries in bulk, where it can; the page
-- begins there again, then.
--
-- Returns {'OK', removed, kept, where the next page begins or '', {group, consumer or '', id, age
-- (ms)}, ...}: for each group the first entry of the page that it holds back, and who has it; ''
-- if the group has not received it. Behind such an entry there is nothing to remove, so that there
-- is no next page.
-- include errors.lua
-- include order.lua
local BULK, SLICE, SIZE = 10000, 20, 1000000
local MAX_ID = '18446744073709551615-18446744073709551615'
local stream = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local length = redis.pcall('XLEN', stream)
if type(length) == 'table' then return failed(length) end
local result = {'OK', 0, 0, ''}
if length == 0 then return result end

-- What a group has received and acknowledged, and what is none of its business.
local groups = {}
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local about = {}
  for at = 1, #info, 2 do about[info[at]] = info[at + 1] end
  local reads = string.sub(about['name'], 1, #ARGV[6]) ~= ARGV[6]
  groups[#groups + 1] = {
    name = about['name'],
    last = reads and about['last-delivered-id'] or MAX_ID,
    lowest = redis.call('XPENDING', stream, about['name'])[2],
  }
end

local oldest = ARGV[2] == '' and 0 or now - ARGV[2]
local function over()
  return ARGV[1] == '' and 0 or redis.call('XLEN', stream) - ARGV[1] - ARGV[4]
end

-- In bulk, by whole nodes and without reading entries: below everything that any group needs.
local function trim_before(id, most)
  for _, group in ipairs(groups) do
    if is_above(id, group.last) then id = group.last end
    if group.lowest and is_above(id, group.lowest) then id = group.lowest end
  end
  local removed = redis.pcall('XTRIM', stream, 'MINID', '~', id, 'LIMIT', most)
  if type(removed) == 'table' then return removed end
  result[2] = result[2] + removed
end
if ARGV[3] == '-' then
  local refused = over() > 0 and trim_before(MAX_ID, math.min(over(), BULK))
  if not refused and oldest > 0 then
    refused = trim_before(string.format('%.0f-0', oldest), BULK)
  end
  if refused then return failed(refused) end
  if result[2] > 0 then
    result[4] = '-'
    return result
  end
end

local most, from, size = tonumber(ARGV[5]), ARGV[3], 0
local beyond, page, is_last = over(), {}, false
if ARGV[2] == '' then most = math.min(most, beyond) end
while #page < most and size < SIZE and not is_last do
  -- The first one alone often tells that there is nothing to do.
  local count = #page == 0 and 1 or math.min(SLICE, most - #page)
  local entries = redis.call('XRANGE', stream, from, '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    if #page >= beyond and tonumber(string.match(entry[1], '%d+')) >= oldest then
      is_last = true
      break
    end
    page[#page + 1] = entry[1]
    from = '(' .. entry[1]
    for at = 2, #entry[2], 2 do size = size + #entry[2][at] end
  end
  is_last = is_last or #entries < count
end
if #page == 0 then return result end
local first, final = page[1], page[#page]
is_last = is_last or (ARGV[2] == '' and #page >= beyond)

local held = {}
for _, group in ipairs(groups) do
  local has_pending = group.lowest and not is_above(group.lowest, final)
  local owner, from = {}, has_pending and first
  while from do
    local rows = redis.call('XPENDING', stream, group.name, from, final, ARGV[5])
    for _, row in ipairs(rows) do owner[row[1]] = row[2] end
    from = #rows == tonumber(ARGV[5]) and '(' .. rows[#rows][1]
  end
  local has_unread, is_told = is_above(final, group.last), false
  for _, id in ipairs((has_pending or has_unread) and page or {}) do
    if owner[id] or (has_unread and is_above(id, group.last)) then
      held[id] = true
      if not is_told then
        result[#result + 1] = {group.name, owner[id] or '', id, now - string.match(id, '%d+')}
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
  result[2] = result[2] + removed
end
result[3] = #page - #doomed
if not is_last then result[4] = '(' .. final end
return result
