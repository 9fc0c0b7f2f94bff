-- Append a batch of messages to the stream.
--
-- KEYS and ARGV[1], ARGV[2] as in ledger.lua
-- ARGV[3] how many options of XADD follow
-- ARGV[4] the options, then for each message: how many fields and values it has, field, value, ...
--
-- Result: the ids in order as runs 'ms-sequence*count' with commas between them; then, if the server
-- refused one of the messages after it had taken others, a space and its error.
-- {'MISSING'} if there is no stream and the options (NOMKSTREAM) do not let it be made.
-- include ledger.lua
local head, at = {'XADD', stream}, 4 + ARGV[3]
for option = 4, at - 1 do head[#head + 1] = ARGV[option] end
head[#head + 1] = '*'

local ids, refusal = {}, ''
while at <= #ARGV do
  local final = at + ARGV[at]
  -- What stands before a message was used already and makes room for the beginning of its command.
  for word = 1, #head do ARGV[at - #head + word] = head[word] end
  local id = redis.pcall(unpack(ARGV, at - #head + 1, final))
  if not id then return {'MISSING'} end
  if type(id) == 'table' then
    if #ids == 0 then return failed(id) end
    refusal = ' ' .. failed(id).err
    break
  end
  ids[#ids + 1] = id
  at = final + 1
end

if #ids == 1 then return done(ids[1] .. '*1' .. refusal) end

local function parts(id)
  local ms, sequence = string.match(id, '(%d+)-(%d+)')
  return ms, tonumber(sequence)
end

-- Ids rise, so that two of them tell whether all between follow each other.
local function is_run(first, final)
  local ms, sequence = parts(ids[first])
  local final_ms, final_sequence = parts(ids[final])
  return ms == final_ms and final_sequence - sequence == final - first and final_sequence < 2 ^ 53
end

local runs, first = {}, 1
while first <= #ids do
  local final, beyond = first, #ids + 1
  if is_run(first, #ids) then final = #ids end
  while beyond - final > 1 and final < #ids do
    local middle = math.floor((final + beyond) / 2)
    if is_run(first, middle) then final = middle else beyond = middle end
  end
  runs[#runs + 1] = ids[first] .. '*' .. final - first + 1
  first = final + 1
end
return done(table.concat(runs, ',') .. refusal)
