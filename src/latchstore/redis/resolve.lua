-- What has become of a commit. ARGV: 1 session, 2 number in it. Answers its revision; or 0, and then it is
-- never made: a command that is still on its way finds its number answered.
local key = KEYS[1] .. ':s:' .. ARGV[1]
local held = redis.call('GET', key)
if held then
  local number, answer = string.match(held, '^(%d+) (.*)$')
  if tonumber(number) == tonumber(ARGV[2]) then return tonumber(answer) end
  if tonumber(number) > tonumber(ARGV[2]) then return redis.error_reply('ERR a later number of the session is answered') end
end
redis.call('SET', key, ARGV[2] .. ' 0', 'PX', 3600000)
return 0
