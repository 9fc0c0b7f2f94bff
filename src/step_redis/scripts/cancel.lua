-- Take a delayed message back before it is due.
--
-- KEYS and ARGV[1], ARGV[2] as in ledger.lua
-- KEYS[3], KEYS[4] as in publish_once.lua
-- ARGV[3] when it is due (ms)
-- ARGV[4] its handle
--
-- Result: '1', or '0' if it is in the stream already, was cancelled, or never was. Its user's key is
-- free again.
-- include ledger.lua
local delayed, record = KEYS[3], KEYS[4]
local beginning = ARGV[4] .. ' '
local members, found = redis.pcall('ZRANGEBYSCORE', delayed, ARGV[3], ARGV[3]), nil
if members.err then return failed(members) end
for _, member in ipairs(members) do
  if string.sub(member, 1, #beginning) == beginning then found = member end
end
if not found then return done('0') end
redis.call('ZREM', delayed, found)
if record then
  local first = string.match(redis.call('GET', record) or '', '^(%S+) ')
  if first == ARGV[3] .. ':' .. ARGV[4] then redis.call('DEL', record) end
end
return done('1')
