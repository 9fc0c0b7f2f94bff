-- What the script of a numbered operation begins with: whatever is repeated takes effect once.
--
-- A producer numbers what it does 1, 2, 3, ... and remembers in its ledger, beside the stream, what
-- came of the last two. So it may have two on their way, and repeat those whose replies were lost.
--
-- KEYS[1] the stream
-- KEYS[2] the producer's ledger: a hash, number -> its result, and 'last' -> the highest number
-- ARGV[1] the number
-- ARGV[2] for how long the ledger is kept from now on (ms)
--
-- Ends the script, with nothing changed, with {'DONE', result} if that number took effect before;
-- {'GONE'} if there is no ledger and the number is not the first, so that nobody knows;
-- {'GAP'} if the number before has not taken effect; {'OLD'} if it is not remembered any more;
-- the server's error if it takes no writes or the user may not write the ledger.
-- A script that goes on calls `done(result)`, last of all, and returns what that returns.
-- include errors.lua
local stream, ledger = KEYS[1], KEYS[2]
local number = tonumber(ARGV[1])

local known = redis.pcall('HMGET', ledger, ARGV[1], 'last')
if known.err then return failed(known) end
if known[1] then return {'DONE', known[1]} end
if not known[2] and number > 1 then return {'GONE'} end
local last = tonumber(known[2] or 0)
if number <= last then return {'OLD'} end
if number > last + 1 then return {'GAP'} end
-- Lua does not roll back: whoever may not write the ledger has to write nothing at all, so that
-- everything that `done` does not need is done here.
-- HSET comes first, since a server without memory refuses only a script's first write.
local writes = {
  {'HSET', ledger, 'last', last}, {'HDEL', ledger, number - 2}, {'PEXPIRE', ledger, ARGV[2]},
}
for _, write in ipairs(writes) do
  local written = redis.pcall(unpack(write))
  if type(written) == 'table' then
    -- A ledger that does not expire must not stay.
    if not known[2] then
      redis.pcall('HDEL', ledger, 'last')
      redis.pcall('DEL', ledger)
    end
    return failed(written)
  end
end

local function done(result)
  redis.call('HSET', ledger, ARGV[1], result, 'last', number)
  return {'DONE', result}
end
