-- The entries of keys, and the log entries since the view. ARGV from 3 on are the keys.
local head = since(a[1], a[2])
if head[1] == 'OK' then
  local found = {}
  for i = 3, #a do found[i - 2] = call('HGETALL', ns .. ':e:' .. a[i]) end
  head[5] = found
end
return head
