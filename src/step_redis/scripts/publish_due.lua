-- Move delayed messages that are due into the stream, in the order in which they are due.
--
-- KEYS[1] the stream
-- KEYS[2] delayed messages (see publish_once.lua)
-- ARGV[1] how many at most
--
-- Returns {'OK', how many were moved}, or the error of the server if it refuses the first one.
-- Lua does not roll back: each message is written first and removed last, and whoever may not remove
-- it writes nothing.
-- include errors.lua
local stream, delayed = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Neither changes anything; a server without memory refuses only a script's first write.
for _, write in ipairs({{'ZADD', delayed, 'XX', 0, ''}, {'ZREM', delayed, ''}}) do
  local may_write = redis.pcall(unpack(write))
  if type(may_write) == 'table' then return failed(may_write) end
end
local moved = 0
local due = redis.pcall('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, ARGV[1])
if due.err then return failed(due) end
for _, member in ipairs(due) do
  local packed = string.sub(member, string.find(member, ' ', 1, true) + 1)
  local added = redis.pcall('XADD', stream, unpack(cmsgpack.unpack(packed), 2))
  if type(added) == 'table' then
    if moved == 0 then return failed(added) end
    break
  end
  redis.call('ZREM', delayed, member)
  moved = moved + 1
end
return {'OK', moved}
