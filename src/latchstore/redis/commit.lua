-- One commit: all of it, or nothing. Every refusal comes before the first write.
--
-- ARGV: 1 session, 2 number in it, 3 token of the lease or '', 4 and 5 revision and id of the last commit
-- that the client has seen or '', 6 version of the list of indexes, 0 if there are none, 7 minimum number of
-- commits in the log, 8 '1' if the answer must have the changes, 9 seconds since the epoch, 10 author, 11 the
-- part of the client's caches, 12 number of edits, then the edits, see `edit`.
--
-- Answers: OK revision changes caches | SAME revision '' caches | AGAIN answer | LOCKED description | LEASE |
-- MOVED | INDEXES | CACHES | DUE | NONE | UNINDEXED | KEY key | REVISION key expected actual | ITEMS key |
-- CACHE ...
--
-- An entry is a flat list, as HGETALL returns it and HSET takes it, of d data, t created, modified and
-- revision, and of fields: 'm' .. item and 'p' .. item, with their values. The state of a key is {k = its
-- hash, old = entry or false, new = entry or false, d, c, u, r = data, created, modified, revision of the new
-- one, cause = cause of its eviction}.
local ns, a = KEYS[1], ARGV
local call = redis.call

-- Refusals before anything is read -----------------------------------------------------------------------

local about = call('HMGET', ns .. ':about', 'revision', 'id', 'version', 'caches', 's:' .. a[1])
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

-- The edited keys, in order, and the state of each.
local order, state = {}, {}

-- A name of length 1 may be that of an item whose own name is empty.
local is_fact = {d = true, t = true}

local function touch(key)
  local s = state[key]
  if s then return s end
  local hash = ns .. ':e:' .. key
  local flat = call('HGETALL', hash)
  s = {k = hash, old = false, new = false, cause = ''}
  if flat[1] then
    s.old, s.new = flat, flat
    for i = 1, #flat, 2 do
      local name = flat[i]
      if name == 'd' then
        s.d = flat[i + 1]
      elseif name == 't' then
        s.c, s.u, s.r = struct.unpack('>ddd', flat[i + 1])
      end
    end
  end
  state[key] = s
  order[#order + 1] = key
  return s
end

-- The fields of an entry, in one list.
local function fields_of(flat)
  local found, n = {}, 0
  for i = 1, #flat, 2 do
    if not is_fact[flat[i]] then
      found[n + 1] = flat[i]
      n = n + 2
      found[n] = flat[i + 1]
    end
  end
  return found
end

local function meta_of(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- Simulation ---------------------------------------------------------------------------------------------

local revision, now = last + 1, tonumber(a[9])
local p = 13

-- Gives a key new data and times, and the fields of a list from one position to another. `modified` increases
-- even if the clock does not.
local function revise(s, data, list, from, to)
  local modified = now
  if s.new then
    local before = s.u
    if now <= before then
      local _, exponent = math.frexp(before)
      modified = before + math.ldexp(1, exponent - 53)
    end
  else
    s.c = now
  end
  s.d, s.u, s.r = data, modified, revision
  local times = struct.pack('>ddd', s.c, modified, revision)
  if to - from < 4000 then
    s.new = {'d', data, 't', times, unpack(list, from, to)}
  else  -- Lua passes no more arguments at once
    local flat, n = {'d', data, 't', times}, 5 - from
    for i = from, to do flat[n + i] = list[i] end
    s.new = flat
  end
end

-- Returns the range of the fields whose number is the argument at `p`, and advances past them.
local function fields_here()
  local from = p + 1
  p = from + 2 * a[p]
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

-- Makes the edit at `p` and advances; returns the answer if the edit is refused.
--   E key data n fields: an entry    D key data: only the data       M key n fields: only the metadata
--   U key n fields: some items       X key cause: deletes it         R key revision: if it has that
--   I key n fields: if it has those  V key cause: deletes it if it exists
--   F key data created modified n fields: an entry with given times
--   C '' and nine more: see claim.lua
local function edit()
  local kind, key = a[p], a[p + 1]
  if kind == 'C' then
    local refused, s, fields = claim(ns, a, p + 2, touch, fields_of)
    if refused then return refused end
    p = p + 11
    return revise(s, s.d, fields, 1, #fields)
  end
  local s = touch(key)
  p = p + 2
  if kind == 'E' then
    local data = a[p]
    p = p + 1
    revise(s, data, a, fields_here())
  elseif kind == 'D' then
    local fields = s.new and fields_of(s.new) or {}
    revise(s, a[p], fields, 1, #fields)
    p = p + 1
  elseif kind == 'M' then
    revise(s, s.new and s.d or '', a, fields_here())
  elseif kind == 'U' then
    if not s.new then return missing(key) end
    local fields = merged(fields_of(s.new), fields_here())
    revise(s, s.d, fields, 1, #fields)
  elseif kind == 'X' or kind == 'V' then
    if kind == 'X' and not s.new then return missing(key) end
    s.new, s.cause = false, a[p]
    p = p + 1
  elseif kind == 'R' then
    local actual = s.new and s.r or 0
    if actual ~= tonumber(a[p]) then return {'REVISION', key, a[p], string.format('%.0f', actual)} end
    p = p + 1
  elseif kind == 'I' then
    local from, to = fields_here()
    local items = s.new and meta_of(s.new) or {}
    for i = from, to, 2 do
      if items[a[i]] ~= a[i + 1] then return {'ITEMS', key} end
    end
  elseif kind == 'F' then
    local data, created, modified = a[p], tonumber(a[p + 1]), tonumber(a[p + 2])
    p = p + 3
    revise(s, data, a, fields_here())
    s.c, s.u, s.new[4] = created, modified, struct.pack('>ddd', created, modified, revision)
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

-- Replaces the positions of entries before the commit by those after it, in each index.
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
      local before, after = old.t and fact_position(old.t, name), new.t and fact_position(new.t, name)
      move(ns .. ':i:f' .. name, before, after)
    end
  end
end

local function set(hash, flat, n)
  if n <= 4000 then
    call('HSET', hash, unpack(flat, 1, n))
  else  -- Lua passes no more arguments at once
    for i = 1, n, 4000 do call('HSET', hash, unpack(flat, i, math.min(i + 3999, n))) end
  end
end

-- Replaces an entry by another one. If both have the same fields, only those that have changed are written,
-- and returned.
local function replace(hash, old, new)
  local count, changed, n = #new, {}, 0
  if #old == count then
    local before = meta_of(old)
    for i = 1, count, 2 do
      local name, value = new[i], new[i + 1]
      local was = before[name]
      if not was then
        n = 0
        break
      end
      if was ~= value then
        changed[n + 1], changed[n + 2] = name, value
        n = n + 2
      end
    end
    if n > 0 then
      set(hash, changed, n)
      return changed
    end
  end
  call('DEL', hash)
  set(hash, new, count)
end

-- For each change the key, the old entry, the new one, and the cause of eviction; or `true`, if only the
-- changed fields stand for the new entry.
local log, n = {}, 0
for i = 1, #order do
  local key = order[i]
  local s = state[key]
  local old, new, cause = s.old, s.new, s.cause
  if old or new then
    if not new then
      call('DEL', s.k)
      call('ZREM', ns .. ':keys', key)
    elseif old then
      local changed = replace(s.k, old, new)
      if changed then new, cause = changed, true end
    else
      call('ZADD', ns .. ':keys', 0, key)
      set(s.k, new, #new)
    end
    log[n + 1], log[n + 2], log[n + 3], log[n + 4] = key, old, new, cause
    n = n + 4
  end
end
if a[3] ~= '' then call('DEL', ns .. ':w') end
if n == 0 then return {'SAME', last, '', extra or ''} end
if a[6] ~= '0' then reindex() end
local packed, id, text = cmsgpack.pack(log), a[1] .. ':' .. a[2], string.format('%.0f', revision)
-- By the clock of the server, as open.lua removes sessions by that clock.
local answered = a[2] .. ' ' .. text .. ' ' .. call('TIME')[1]
call('XADD', ns .. ':log', 'MAXLEN', '~', a[7], text .. '-0', 'i', id, 'a', a[10], 'c', packed)
call('HSET', ns .. ':about', 'revision', text, 'id', id, 's:' .. a[1], answered)
return {'OK', text, (a[8] == '1' or a[13] == 'C') and packed or '', extra or ''}
