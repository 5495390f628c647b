-- Opens a store. ARGV: 1 the format. Answers the format of the namespace.
--
-- The format is longer than values that Redis keeps in a list: so `about` is a table, in which the number of
-- one of many sessions is found quickly. Numbers of sessions that were not used for a day are removed.
local about = KEYS[1] .. ':about'
local call = redis.call
if call('HSETNX', about, 'format', ARGV[1]) == 0 then
  local now, old = tonumber(call('TIME')[1]), {}
  local fields = call('HGETALL', about)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 's:' then
      local used = tonumber(string.match(fields[i + 1], ' (%S+)$'))
      if used and used < now - 86400 then old[#old + 1] = fields[i] end
    end
  end
  for i = 1, #old, 4000 do call('HDEL', about, unpack(old, i, math.min(i + 3999, #old))) end
end
return call('HGET', about, 'format')
