-- Whether an entry's id is above another one's: they compare as numbers, of 64 bits, which Lua's do
-- not hold.
local function is_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function is_above(id, other)
  local ms, sequence = string.match(id, '(%d+)%-(%d+)')
  local other_ms, other_sequence = string.match(other, '(%d+)%-(%d+)')
  if ms ~= other_ms then return is_less(other_ms, ms) end
  return is_less(other_sequence, sequence)
end
