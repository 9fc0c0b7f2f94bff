-- Make a group that is not there, where the policy says that it goes on.
--
-- KEYS[1] the stream
-- KEYS[2] the checkpoint (see poll.lua)
-- ARGV[1] the group
-- ARGV[2] 'replay': from the start of what is there; 'resume': from the checkpoint on; 'latest': only
--         what comes later; 'fail': not at all
--
-- Returns {'THERE'}, {'MADE', after which id it reads} or {'MISSING'}.
-- include errors.lua
-- include order.lua
local stream, group, policy = KEYS[1], ARGV[1], ARGV[2]

local found = redis.pcall('XPENDING', stream, group)
if not found.err then return {'THERE'} end
if not string.find(found.err, 'NOGROUP', 1, true) then return failed(found) end
if policy == 'fail' then return {'MISSING'} end

local function one_less(digits)
  local head, first, zeros = string.match(digits, '^(.-)([1-9])(0*)$')
  local less = head .. (tonumber(first) - 1) .. string.rep('9', #zeros)
  return (string.gsub(less, '^0+(%d)', '%1'))
end

local function before(id)
  local ms, sequence = string.match(id, '(%d+)%-(%d+)')
  if sequence ~= '0' then return ms .. '-' .. one_less(sequence) end
  return one_less(ms) .. '-18446744073709551615'
end

local start = policy == 'latest' and '$' or '0'
if policy == 'resume' and redis.call('EXISTS', stream) == 1 then
  local kind, id = string.match(redis.call('GET', KEYS[2]) or '', '^([<=])(.*)$')
  local info, last = redis.call('XINFO', 'STREAM', stream), nil
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then last = info[at + 1] end
  end
  if id and not is_above(id, last) then start = kind == '=' and id or before(id) end
end
local made = redis.pcall('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
if made.err then return failed(made) end
return {'MADE', start}
