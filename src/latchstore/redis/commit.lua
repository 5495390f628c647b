-- One commit: all of it, or nothing. What can be refused is refused before the first write.
--
-- ARGV: 1 session, 2 number in it, 3 token of the lease or '', 4 and 5 revision and id of the last commit that
-- the client has seen or '', 6 version of the list of indexes, 0 if there are none, 7 how many commits the log
-- keeps at the least, 8 '1' if the changes are wanted in the answer, 9 seconds since the epoch, 10 author,
-- 11 what the caches of the client want, 12 how many edits, then the edits, see `edit`.
--
-- Answers: OK revision changes caches | SAME revision '' caches | AGAIN answer | LOCKED description | LEASE |
-- MOVED | INDEXES | CACHES | KEY key | REVISION key expected actual | ITEMS key | CACHE ...
--
-- An entry is {d = data, c = created, u = modified, r = revision, flat = all of them and the fields}; times and
-- revisions are text, as the client has written them. Fields are 'm' .. item and 'p' .. item, with their values.
-- `flat` is what HGETALL gives and HSET takes.
local ns, a = KEYS[1], ARGV
local call = redis.call

-- Refusals before anything is looked at ------------------------------------------------------------------

local about = call('HMGET', ns .. ':about', 'revision', 'id', 'iv', 'caches', 's:' .. a[1])
local lease = call('GET', ns .. ':w')
if about[5] then
  local number, answer = string.match(about[5], '^(%d+) (%d+)')
  if tonumber(number) >= tonumber(a[2]) then return {'AGAIN', answer} end
end
if a[3] ~= '' then
  if not lease or string.sub(lease, 1, #a[3]) ~= a[3] then return {'LEASE'} end
elseif lease then
  return {'LOCKED', lease}
end
local last = about[1] or '0'
if a[4] ~= '' and (a[4] ~= last or a[5] ~= (about[2] or '')) then return {'MOVED'} end
if (about[3] or '0') ~= a[6] then return {'INDEXES'} end
if about[4] and not caches then return {'CACHES'} end

-- Entries ------------------------------------------------------------------------------------------------

-- The keys that are edited, in their order, and what has become of each.
local order, state = {}, {}

local function touch(key)
  local found = state[key]
  if found then return found end
  local hash = ns .. ':e:' .. key
  local flat, old = call('HGETALL', hash), false
  if flat[1] then
    old = {flat = flat}
    for i = 1, #flat, 2 do
      local name = flat[i]
      if #name == 1 then old[name] = flat[i + 1] end
    end
  end
  found = {k = hash, old = old, new = old, cause = ''}
  state[key] = found
  order[#order + 1] = key
  return found
end

-- The fields of an entry, in one flat list.
local function fields_of(entry)
  local flat, found, n = entry.flat, {}, 0
  for i = 1, #flat, 2 do
    if #flat[i] > 1 then
      found[n + 1] = flat[i]
      n = n + 2
      found[n] = flat[i + 1]
    end
  end
  return found
end

local function meta_of(entry)
  local found, flat = {}, entry.flat
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- Simulation ---------------------------------------------------------------------------------------------

local revision, now = string.format('%.0f', last + 1), a[9]
local p = 13

-- Returns an entry with given data and the fields of a list from one place to another, in the place of another
-- entry. `modified` moves on even if the clock does not.
local function revised(current, data, list, from, to)
  local created, modified = now, now
  if current then
    created = current.c
    local before = tonumber(current.u)
    if tonumber(now) <= before then
      local _, exponent = math.frexp(before)
      modified = string.format('%.17g', before + math.ldexp(1, exponent - 53))
    end
  end
  local flat, n = {'d', data, 'c', created, 'u', modified, 'r', revision}, 8 - from + 1
  for i = from, to do flat[n + i] = list[i] end
  return {d = data, c = created, u = modified, r = revision, flat = flat}
end

-- Returns the first argument after the fields whose number is the argument at `p`, and moves on to it.
local function past_fields()
  local from = p + 1
  p = from + 2 * tonumber(a[p])
  return from, p - 1
end

local function merged(fields, from, to)
  local place, n = {}, #fields
  for i = 1, n, 2 do place[fields[i]] = i end
  for i = from, to, 2 do
    local at = place[a[i]]
    if not at then
      at = n + 1
      n = n + 2
      fields[at] = a[i]
    end
    fields[at + 1] = a[i + 1]
  end
  return fields
end

local function missing(key)
  if overtake then overtake(ns, key) end
  return {'KEY', key}
end

-- Does the edit at `p` and moves on; returns what is answered if it cannot be done.
--   E key data n fields: an entry    D key data: the data alone    M key n fields: the metadata alone
--   U key n fields: some items       X key cause: deletes it       R key revision: if it has that
--   I key n fields: if it has those  V key cause: deletes it if it is there
--   F key data created modified n fields: an entry whose times are known
local function edit()
  local kind, key = a[p], a[p + 1]
  local s = touch(key)
  local current = s.new
  p = p + 2
  if kind == 'E' then
    local data = a[p]
    p = p + 1
    s.new = revised(current, data, a, past_fields())
    s.whole = true
  elseif kind == 'D' then
    local fields = current and fields_of(current) or {}
    s.new = revised(current, a[p], fields, 1, #fields)
    p = p + 1
  elseif kind == 'M' then
    s.new = revised(current, current and current.d or '', a, past_fields())
    s.whole = true
  elseif kind == 'U' then
    if not current then return missing(key) end
    local fields = merged(fields_of(current), past_fields())
    s.new = revised(current, current.d, fields, 1, #fields)
  elseif kind == 'X' or kind == 'V' then
    if kind == 'X' and not current then return missing(key) end
    s.new, s.cause, s.whole = false, a[p], true
    p = p + 1
  elseif kind == 'R' then
    local actual = current and current.r or '0'
    if actual ~= a[p] then return {'REVISION', key, a[p], actual} end
    p = p + 1
  elseif kind == 'I' then
    local from, to = past_fields()
    local items = current and meta_of(current) or {}
    for i = from, to, 2 do
      if items[a[i]] ~= a[i + 1] then return {'ITEMS', key} end
    end
  elseif kind == 'F' then
    local data, created, modified = a[p], a[p + 1], a[p + 2]
    p = p + 3
    local from, to = past_fields()
    s.new = revised(false, data, a, from, to)
    s.new.c, s.new.u, s.new.flat[4], s.new.flat[6] = created, modified, created, modified
    s.whole = true
  else
    error('unknown edit ' .. tostring(kind))
  end
end

for _ = 1, tonumber(a[12]) do
  local refused = edit()
  if refused then return refused end
end
local extra
if caches then
  local refused
  refused, extra = caches(ns, about[4], a[11], order, state, touch)
  if refused then return refused end
end

-- Writing: nothing fails from here on --------------------------------------------------------------------

-- Puts the positions of entries after the commit in the place of those before, in each index.
local function reindex()
  local found = call('HMGET', ns .. ':about', 'items', 'facts')
  local items, facts = cmsgpack.unpack(found[1]), cmsgpack.unpack(found[2])
  for _, key in ipairs(order) do
    local s = state[key]
    local old, new = s.old and meta_of(s.old) or {}, s.new and meta_of(s.new) or {}
    local function move(set, before, after)
      if before ~= after then
        if before then call('ZREM', set, before .. key) end
        if after then call('ZADD', set, 0, after .. key) end
      end
    end
    for _, name in ipairs(items) do move(ns .. ':i:m' .. name, old['p' .. name], new['p' .. name]) end
    for _, name in ipairs(facts) do
      local letter = name == 'modified' and 'u' or string.sub(name, 1, 1)
      local before, after = old[letter], new[letter]
      move(
        ns .. ':i:f' .. name,
        before and struct.pack('>d', tonumber(before)),
        after and struct.pack('>d', tonumber(after))
      )
    end
  end
end

local function write(hash, flat)
  local n = #flat
  if n <= 4000 then
    call('HSET', hash, unpack(flat))
  else  -- Lua passes no more at once
    for i = 1, n, 4000 do call('HSET', hash, unpack(flat, i, math.min(i + 3999, n))) end
  end
end

local log, added, n = {}, {}, 0
for i = 1, #order do
  local key = order[i]
  local s = state[key]
  local old, new = s.old, s.new
  if old or new then
    -- Fields that are there no more.
    if old and s.whole and #old.flat > 8 then call('DEL', s.k) elseif not new then call('DEL', s.k) end
    if new then
      write(s.k, new.flat)
      if not old then call('ZADD', ns .. ':keys', 0, key) end
    else
      call('ZREM', ns .. ':keys', key)
    end
    n = n + 1
    log[n] = {key, old and old.flat, new and new.flat, s.cause}
  end
end
if a[3] ~= '' then call('DEL', ns .. ':w') end
if n == 0 then return {'SAME', last, '', extra or ''} end
if a[6] ~= '0' then reindex() end
local packed, id = cmsgpack.pack(log), a[1] .. ':' .. a[2]
call('XADD', ns .. ':log', 'MAXLEN', '~', a[7], revision .. '-0', 'i', id, 'a', a[10], 'c', packed)
call('HSET', ns .. ':about', 'revision', revision, 'id', id, 's:' .. a[1], a[2] .. ' ' .. revision .. ' ' .. now)
return {'OK', revision, a[8] == '1' and packed or '', extra or ''}
