-- Append one message to the stream, now or when it is due, unless its user's key was used before.
--
-- KEYS and ARGV[1], ARGV[2] as in ledger.lua
-- KEYS[3] delayed messages: a sorted set, 'handle packed' -> when it is due (ms); packed are the
--         user's key or '', and the arguments of XADD
-- KEYS[4] what is known of the user's key: 'result digest'; left out without such a key
-- ARGV[3] digest of the message
-- ARGV[4] for how long the user's key is remembered, after the message is due (ms)
-- ARGV[5] when it is due: '' for now, '+ms' from now, or the time (ms)
-- ARGV[6] '1' if the stream has to exist
-- ARGV[7] the user's key, or ''
-- ARGV[8] what follows the stream in XADD: options, '*', field, value, ...
--
-- Result: 'NEW result' with the id or the handle, 'due:handle'; 'SAME result' or 'OTHER result' if
-- the user's key was used before, for the same message or for another one: nothing is written then.
-- {'MISSING'} if there is no stream though there has to be one.
-- include ledger.lua
local RESERVED = '- -'
local delayed, record = KEYS[3], KEYS[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = now
if string.sub(ARGV[5], 1, 1) == '+' then
  due = now + string.sub(ARGV[5], 2)
elseif ARGV[5] ~= '' then
  due = tonumber(ARGV[5])
end
local kept = string.format('%.0f', ARGV[4] + math.max(0, due - now))
if ARGV[6] == '1' and redis.call('EXISTS', stream) == 0 then return {'MISSING'} end

if record then
  local known = redis.pcall('GET', record)
  if type(known) == 'table' then return failed(known) end
  if known and known ~= RESERVED then
    local first, digest = string.match(known, '^(%S+) (.*)$')
    return done((digest == ARGV[3] and 'SAME ' or 'OTHER ') .. first)
  end
  -- As above: whoever may not write the record has to write nothing.
  local reserved = redis.pcall('SET', record, RESERVED, 'PX', kept)
  if reserved.err then return failed(reserved) end
end

local written
if ARGV[5] == '' then
  written = redis.pcall('XADD', stream, unpack(ARGV, 8))
else
  -- Those that are due together are in the order of their handles: that in which they came.
  local lane, micros = string.match(ledger, '[^:]*$'), time[1] * 1000000 + time[2]
  local handle = string.format('%016.0f-%s.%012.0f', micros, lane, number)
  local packed = {}
  for at = 7, #ARGV do packed[#packed + 1] = ARGV[at] end
  written = redis.pcall('ZADD', delayed, due, handle .. ' ' .. cmsgpack.pack(packed))
  if type(written) ~= 'table' then written = string.format('%.0f:%s', due, handle) end
end
if type(written) == 'table' then
  if record then redis.call('SET', record, RESERVED, 'PX', 1) end
  return failed(written)
end
if record then redis.call('SET', record, written .. ' ' .. ARGV[3], 'PX', kept) end
return done('NEW ' .. written)
