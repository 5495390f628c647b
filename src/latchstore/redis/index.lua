-- The indexes of a namespace, under the writer lease. ARGV: 1 the operation, 2 token of the lease, then
--   clear: sets. Removes what an earlier attempt may have left of an index.
--   items: 3 set, 4 field of the position, then key and position of entries.
--   facts: 3 set, 4 name of the fact, then keys.
--   list: 3 list as a text, 4 its metadata items, 5 its facts, then sets to remove.
-- Answers: LEASE, if that has expired | OK.
local ns, a = KEYS[1], ARGV
local call = redis.call

local held = call('GET', ns .. ':w')
if not held or string.sub(held, 1, #a[2]) ~= a[2] then return 'LEASE' end
local set = ns .. ':' .. a[3]
if a[1] == 'clear' then
  for i = 3, #a do call('UNLINK', ns .. ':' .. a[i]) end
elseif a[1] == 'items' then
  for i = 5, #a, 2 do
    call('HSET', ns .. ':e:' .. a[i], a[4], a[i + 1])
    call('ZADD', set, 0, a[i + 1] .. a[i])
  end
elseif a[1] == 'facts' then
  for i = 5, #a do
    call('ZADD', set, 0, fact_position(call('HGET', ns .. ':e:' .. a[i], 't'), a[4]) .. a[i])
  end
elseif a[1] == 'list' then
  call('HSET', ns .. ':about', 'listed', a[3], 'items', a[4], 'facts', a[5])
  call('HINCRBY', ns .. ':about', 'version', 1)
  for i = 6, #a do call('UNLINK', ns .. ':' .. a[i]) end
end
return 'OK'
