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
local count = redis.pcall('ZCOUNT', delayed, '-inf', ARGV[3])
if type(count) == 'table' then return failed(count) end
-- Those that are due at the same time are in the order of their handles, which have one length.
local low, high = redis.call('ZCOUNT', delayed, '-inf', '(' .. ARGV[3]), count - 1
local found
while low <= high and not found do
  local middle = math.floor((low + high) / 2)
  local member = redis.call('ZRANGE', delayed, middle, middle)[1]
  local handle = string.sub(member, 1, #ARGV[4])
  if handle == ARGV[4] then
    found = member
  elseif handle < ARGV[4] then
    low = middle + 1
  else
    high = middle - 1
  end
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
