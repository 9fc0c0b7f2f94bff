-- The reply of a script for the error of a command that it ran.
-- Redis 6.2 puts the place in the script and a dash before the error's code.
local function failed(reply)
  local text = string.gsub(reply.err, '^@user_script: %d+: ', '')
  return redis.error_reply((string.gsub(text, '^%-', '')))
end
