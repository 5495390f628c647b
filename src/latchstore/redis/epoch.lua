-- A server that has lost commits (a failover, a restart) continues from a revision that others have seen
-- already. The first client that detects that raises it above the revisions that it has seen, so that no
-- watch sees a revision twice. ARGV: 1 the revision that was seen, 2 the id of the log entry, then pairs of
-- revision and id of commits that were seen, newest first.
--
-- Answers revision and id of the last commit, and the newest of the pairs' revisions that the server has.
local ns, a = KEYS[1], ARGV
local call = redis.call
local about = call('HMGET', ns .. ':about', 'revision', 'id')
local last, last_id = about[1] or '0', about[2] or ''
local common = -1
for i = 3, #a, 2 do
  if a[i] == '0' then
    common = 0
    break
  elseif tonumber(a[i]) <= tonumber(last) then
    local found = call('XRANGE', ns .. ':log', a[i] .. '-0', a[i] .. '-0')[1]
    if found and found[2][2] == a[i + 1] then
      common = tonumber(a[i])
      break
    end
  end
end
if tonumber(last) <= tonumber(a[1]) then
  local raised = string.format('%.0f', tonumber(a[1]) + 1)
  call('XADD', ns .. ':log', raised .. '-0', 'i', a[2], 'a', '', 'c', cmsgpack.pack({}), 'p', last)
  call('HSET', ns .. ':about', 'revision', raised, 'id', a[2])
  last, last_id = raised, a[2]
end
return {last, last_id, common}
