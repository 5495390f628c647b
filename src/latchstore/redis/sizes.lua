-- The lengths of the data of a page of keys. ARGV: 1 its beginning, as for ZRANGEBYLEX, 2 number of keys.
-- Answers keys and lengths, alternating.
local ns, call = KEYS[1], redis.call
local found = {}
for _, key in ipairs(call('ZRANGEBYLEX', ns .. ':keys', ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = key
  found[#found + 1] = call('HSTRLEN', ns .. ':e:' .. key, 'd')
end
return found
