-- A page of keys in order, with or without their entries. ARGV: 3 its beginning, as for ZRANGEBYLEX, 4 number
-- of keys, 5 '1' for entries.
local head = since(a[1], a[2])
if head[1] == 'OK' then
  local keys = call('ZRANGEBYLEX', ns .. ':keys', a[3], '+', 'LIMIT', 0, a[4])
  local entries = {}
  if a[5] == '1' then
    for i = 1, #keys do entries[i] = call('HGETALL', ns .. ':e:' .. keys[i]) end
  end
  head[5] = {keys, entries}
end
return head
