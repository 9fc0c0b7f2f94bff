-- What the script of a numbered operation begins with: whatever is repeated takes effect once.
--
-- A producer numbers what it does 1, 2, 3, ... and remembers in its ledger, beside the stream, what
-- came of the last two. So it may have two on their way, and repeat those whose replies were lost.
--
-- KEYS[1] the stream
-- KEYS[2] the producer's ledger: a hash, '1' and '0' -> 'number result' of the last odd and the last
--         even number; '' from when an operation begins until it has taken effect
-- ARGV[1] the number
-- ARGV[2] for how long the ledger is kept from now on (ms); '0' leaves that as it is
--
-- Ends the script, with nothing changed, with {'DONE', result} if that number took effect before;
-- {'GONE'} if there is no ledger and the number is not the first, so that nobody knows;
-- {'GAP'} if the number before has not taken effect; {'OLD'} if it is not remembered any more;
-- the server's error if it takes no writes or the user may not write the ledger.
-- A script that goes on calls `done(result)`, last of all, and returns what that returns.
-- include errors.lua
local stream, ledger = KEYS[1], KEYS[2]
local number = tonumber(ARGV[1])
local own = number % 2

local known = redis.pcall('HMGET', ledger, own, 1 - own)
if known.err then return failed(known) end
local last = 0
for slot = 1, 2 do
  local of = known[slot] and tonumber(string.match(known[slot], '^%d+'))
  if of and of > last then last = of end
  if of == number then return {'DONE', string.sub(known[slot], #ARGV[1] + 2)} end
end
if number > 1 and not known[1] and not known[2] then return {'GONE'} end
if number <= last then return {'OLD'} end
if number > last + 1 then return {'GAP'} end
-- Lua does not roll back: whoever may not write the ledger has to write nothing at all, so that
-- everything that `done` does not need is done here.
-- HSET comes first, since a server without memory refuses only a script's first write.
local written = redis.pcall('HSET', ledger, own, '')
if type(written) == 'number' and ARGV[2] ~= '0' then
  written = redis.pcall('PEXPIRE', ledger, ARGV[2])
end
if type(written) == 'table' then
  -- A ledger that does not expire must not stay.
  if not known[1] and not known[2] then
    redis.pcall('HDEL', ledger, own)
    redis.pcall('DEL', ledger)
  end
  return failed(written)
end

local function done(result)
  redis.call('HSET', ledger, own, ARGV[1] .. ' ' .. result)
  return {'DONE', result}
end
