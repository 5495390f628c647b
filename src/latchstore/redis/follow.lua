-- The log after a commit that a process has published. ARGV: 1 and 2 revision and id of that commit, 3
-- maximum number of commits.
--
-- Answers: status, revision and id of the last commit, the commits. There are fewer if they have many bytes.
-- The status is LOST, without commits, if the server does not have that commit and has not deleted it from
-- the log either: it has lost some.
local ns, revision, id = KEYS[1], ARGV[1], ARGV[2]
local call = redis.call
local about = call('HMGET', ns .. ':about', 'revision', 'id')
local last, last_id = about[1] or '0', about[2] or ''
local since, until_now = tonumber(revision), tonumber(last)
local known = id ~= ''
if since > until_now or (known and since == until_now and id ~= last_id) then
  return {'LOST', last, last_id, {}}
end

local found, bytes, place, wanted = {}, 0, revision .. '-0', tonumber(ARGV[3])
local is_first = true

-- Adds a commit; returns whether the server has lost some.
local function take(commit)
  local fields = commit[2]
  if is_first then
    is_first = false
    if commit[1] == revision .. '-0' then return known and fields[2] ~= id end
    -- A fourth field means that commits were lost before: see epoch.lua.
    if fields[8] and tonumber(fields[8]) < since then return true end
  end
  if bytes < 1000000 and #found < wanted then
    found[#found + 1] = commit
    bytes = bytes + #fields[6]
  end
end

while since < until_now and bytes < 1000000 and #found < wanted do
  local page = call('XRANGE', ns .. ':log', place, '+', 'COUNT', 20)
  for _, commit in ipairs(page) do
    if take(commit) then return {'LOST', last, last_id, {}} end
  end
  if #page < 20 then break end
  place = '(' .. page[20][1]
end
return {'OK', last, last_id, found}
