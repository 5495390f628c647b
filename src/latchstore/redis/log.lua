-- Prepended to reading scripts. KEYS[1] is the namespace in braces.
--
-- ARGV 1 and 2 are revision and id of the commit up to which a view has read the log, or '' for no view.
-- `since` returns the beginning of the answer: status, revision and id of the last commit, and the log after
-- the view's commit. The status is OK; MORE if there is too much for one answer, which then has nothing else;
-- COMPACTED if the log does not go back far enough, with its first revision; LOST if the server does not have
-- the view's commit any more.
local ns, a = KEYS[1], ARGV
local call = redis.call

local function since(revision, id)
  local about = call('HMGET', ns .. ':about', 'revision', 'id')
  local last, last_id = about[1] or '0', about[2] or ''
  if revision == '' then return {'OK', last, last_id, {}} end
  if revision == last then
    if id ~= last_id then return {'LOST', last, last_id, {}} end
    return {'OK', last, last_id, {}}
  end
  if tonumber(revision) > tonumber(last) then return {'LOST', last, last_id, {}} end
  local found = call('XRANGE', ns .. ':log', revision .. '-0', '+', 'COUNT', 500)
  local first = found[1]
  if first and first[1] == revision .. '-0' then
    if first[2][2] ~= id then return {'LOST', last, last_id, {}} end
    table.remove(found, 1)
  elseif first and first[2][8] and tonumber(first[2][8]) < tonumber(revision) then
    return {'LOST', last, last_id, {}}  -- it represents commits that the server has lost: epoch.lua
  end
  local oldest = first and string.match(first[1], '^%d+') or string.format('%.0f', last + 1)
  if tonumber(oldest) > tonumber(revision) + 1 then return {'COMPACTED', last, last_id, {}, oldest} end
  local reached = found[#found]
  if reached[1] ~= last .. '-0' then
    return {'MORE', string.match(reached[1], '^%d+'), reached[2][2], found}
  end
  return {'OK', last, last_id, found}
end
