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
-- As in ledger.lua: whoever may not do all of it does nothing.
local may_remove = redis.pcall('ZREM', delayed, '')
if type(may_remove) == 'table' then return failed(may_remove) end
if record then
  local known = redis.pcall('GET', record)
  if type(known) == 'table' then return failed(known) end
  if string.match(known or '', '^(%S+) ') == ARGV[3] .. ':' .. ARGV[4] then
    local freed = redis.pcall('DEL', record)
    if type(freed) == 'table' then return failed(freed) end
  end
end
redis.call('ZREM', delayed, found)
return done('1')
