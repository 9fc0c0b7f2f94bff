-- Look at delayed messages; changes nothing.
--
-- KEYS[1] delayed messages (see publish_once.lua)
-- ARGV[1] how many at most
--
-- Returns {'OK', how many there are, {due (ms), handle, {user's key or '', arguments of XADD}}, ...}, in the order in
-- which they are due.
-- include errors.lua
local delayed = KEYS[1]
local count = redis.pcall('ZCARD', delayed)
if type(count) == 'table' then return failed(count) end
local result = {'OK', count}
local found = redis.call('ZRANGEBYSCORE', delayed, '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[1])
for at = 1, #found, 2 do
  local space = string.find(found[at], ' ', 1, true)
  local handle, packed = string.sub(found[at], 1, space - 1), string.sub(found[at], space + 1)
  result[#result + 1] = {string.format('%.0f', found[at + 1]), handle, cmsgpack.unpack(packed)}
end
return result
