-- Write an entry to another stream and acknowledge a message, as one: dead letters and forwarding.
--
-- KEYS[5] the other stream
-- ARGV[3] '1' to remove the acknowledged entry from its stream as well
-- ARGV[4] the id of the message
-- ARGV[5] fields to add for when it was delivered first and last (ms), or '' and '' for none
-- ARGV[7] the fields of the entry to write: name, value, ...
--
-- Returns {'OK', id of the written entry}; {'OK'} if the message was not pending with the caller;
-- {'TYPE'} if the other key is no stream. Nothing is changed in these cases.
-- Lua does not roll back: the copy is written first, and acknowledged last.
-- include group.lua
-- include fence.lua
local kind = redis.call('TYPE', KEYS[5]).ok
if kind ~= 'stream' and kind ~= 'none' then return {'TYPE'} end
local id = ARGV[4]
local row = owned({id})[id]
if not row then return {'OK'} end

local add = {'XADD', KEYS[5], '*'}
for at = 7, #ARGV do add[#add + 1] = ARGV[at] end
if ARGV[5] ~= '' then
  local last = now - row[3]
  add[#add + 1] = ARGV[5]
  add[#add + 1] = string.format('%.0f', attempt(id) or last)
  add[#add + 1] = ARGV[6]
  add[#add + 1] = string.format('%.0f', last)
end
local written = redis.call(unpack(add))
settle({id}, ARGV[3] == '1')
return {'OK', written}
