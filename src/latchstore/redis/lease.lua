-- The writer lease. ARGV: 1 the operation, 2 the token, then
--   take: 3 milliseconds, 4 a description. Answers 1, revision and id of the last commit, or 0 and the holder.
--   renew: 3 milliseconds. Answers whether it is held.
--   give: releases it. Answers whether it was held. A `take` that arrives after that takes nothing.
local ns, a = KEYS[1], ARGV
local call = redis.call
local key, token = ns .. ':w', a[2]
local held = call('GET', key)
local is_own = held and string.sub(held, 1, #token) == token
if a[1] == 'take' then
  if held and not is_own then return {0, held} end
  if call('EXISTS', ns .. ':s:' .. token) == 1 then return {0, ''} end
  call('SET', key, token .. ' ' .. a[4], 'PX', a[3])
  local about = call('HMGET', ns .. ':about', 'revision', 'id')
  return {1, about[1] or '0', about[2] or ''}
elseif a[1] == 'renew' then
  if is_own then call('PEXPIRE', key, a[3]) end
elseif a[1] == 'give' then
  if is_own then call('DEL', key) end
  if a[3] then call('SET', ns .. ':s:' .. token, '0 given', 'PX', 3600000) end
end
return is_own and 1 or 0
