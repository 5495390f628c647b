-- How long the data of a page of keys is. ARGV: 1 where the page begins, as ZRANGEBYLEX has it, 2 how many keys.
-- Answers keys and lengths, in turns.
local ns, call = KEYS[1], redis.call
local found = {}
for _, key in ipairs(call('ZRANGEBYLEX', ns .. ':keys', ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = key
  found[#found + 1] = call('HSTRLEN', ns .. ':e:' .. key, 'd')
end
return found
