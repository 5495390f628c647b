-- The outcome of a commit. ARGV: 1 session, 2 number in it. Answers its revision; or 0, and then it is never
-- made: a command that is still on its way finds its number answered.
local about, field = KEYS[1] .. ':about', 's:' .. ARGV[1]
local held = redis.call('HGET', about, field)
if held then
  local number, answer = string.match(held, '^(%d+) (%d+)')
  if tonumber(number) == tonumber(ARGV[2]) then return tonumber(answer) end
  if tonumber(number) > tonumber(ARGV[2]) then
    return redis.error_reply('ERR a later number of the session is answered')
  end
end
redis.call('HSET', about, field, ARGV[2] .. ' 0 ' .. redis.call('TIME')[1])
return 0
