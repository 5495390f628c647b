-- The first members of some ranges of an index, at one instant. ARGV: 1 version of the list of indexes, 2 the set,
-- then low and high of each range. Answers '' for a range without members, or INDEXES.
local ns, a = KEYS[1], ARGV
if (redis.call('HGET', ns .. ':about', 'version') or '0') ~= a[1] then return 'INDEXES' end
local found = {}
for i = 3, #a, 2 do
  local set = ns .. ':' .. a[2]
  found[#found + 1] = redis.call('ZRANGEBYLEX', set, '[' .. a[i], '(' .. a[i + 1], 'LIMIT', 0, 1)[1] or ''
end
return found
