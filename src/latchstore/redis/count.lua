-- The number of keys, with the log entries since the view.
local head = since(a[1], a[2])
if head[1] == 'OK' then
  head[5] = call('ZCARD', ns .. ':keys')
end
return head
