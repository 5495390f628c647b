-- One commit: all of it, or nothing. What can be refused is refused before the first write.
--
-- ARGV: 1 session, 2 number in it, 3 token of the lease or '', 4 and 5 revision and id of the last commit that
-- the client has seen or '', 6 version of the list of indexes, 0 if there are none, 7 how many commits the log keeps at the least,
-- 8 '1' if the changes are wanted in the answer, 9 seconds since the epoch, 10 author, 11 what the caches of
-- the client want, 12 how many edits, then the edits, see `edit`.
--
-- Answers: OK revision changes caches | SAME revision '' caches | AGAIN answer | LOCKED description | LEASE |
-- MOVED | INDEXES | KEY key | REVISION key expected actual | ITEMS key | CACHE ...
--
-- An entry is {d = data, c = created, u = modified, r = revision, f = fields}; times and revisions are text, as
-- the client has written them. Fields are all 'm' .. item and 'p' .. item with their values, in one flat list.
local ns, a = KEYS[1], ARGV
local call = redis.call

local function loaded(key)
  local flat = call('HGETALL', key)
  if #flat == 0 then return false end
  local entry, fields, n = {f = {}}, nil, 0
  fields = entry.f
  for i = 1, #flat, 2 do
    local name = flat[i]
    if #name == 1 then
      entry[name] = flat[i + 1]
    else
      fields[n + 1] = name
      n = n + 2
      fields[n] = flat[i + 1]
    end
  end
  return entry
end

local function meta_of(entry)
  local found, fields = {}, entry.f
  for i = 1, #fields, 2 do found[fields[i]] = fields[i + 1] end
  return found
end

-- The keys that are edited, in their order, and what has become of each.
local order, state = {}, {}

local function touch(key)
  local found = state[key]
  if not found then
    local hash = ns .. ':e:' .. key
    local old = loaded(hash)
    found = {k = hash, old = old, new = old, cause = ''}
    state[key] = found
    order[#order + 1] = key
  end
  return found
end

-- Refusals before anything is looked at ------------------------------------------------------------------

local session_key = ns .. ':s:' .. a[1]
local held = call('MGET', session_key, ns .. ':w')
if held[1] then
  local number, answer = string.match(held[1], '^(%d+) (.*)$')
  if tonumber(number) >= tonumber(a[2]) then return {'AGAIN', answer} end
end
local lease = held[2]
if a[3] ~= '' then
  if not lease or string.sub(lease, 1, #a[3]) ~= a[3] then return {'LEASE'} end
elseif lease then
  return {'LOCKED', lease}
end
local about = call('HMGET', ns .. ':about', 'revision', 'id', 'iv', 'items', 'facts', 'caches')
local last = about[1] or '0'
if a[4] ~= '' and (a[4] ~= last or a[5] ~= (about[2] or '')) then return {'MOVED'} end
if (about[3] or '0') ~= a[6] then return {'INDEXES'} end
local revision = string.format('%.0f', tonumber(last) + 1)

-- Simulation ---------------------------------------------------------------------------------------------

local now = a[9]

-- Gives an entry its times and the revision; `modified` moves on even if the clock does not.
local function revise(entry, current)
  entry.r = revision
  if current then
    entry.c = current.c
    local before = tonumber(current.u)
    if tonumber(now) > before then
      entry.u = now
    else
      local _, exponent = math.frexp(before)
      entry.u = string.format('%.17g', before + math.ldexp(1, exponent - 53))
    end
  else
    entry.c = now
    entry.u = now
  end
  return entry
end

local function merged(fields, more)
  local place, result, n = {}, {}, #fields
  for i = 1, n, 2 do
    result[i] = fields[i]
    result[i + 1] = fields[i + 1]
    place[fields[i]] = i
  end
  for i = 1, #more, 2 do
    local at = place[more[i]]
    if not at then
      at = n + 1
      n = n + 2
      result[at] = more[i]
    end
    result[at + 1] = more[i + 1]
  end
  return result
end

local p = 13

local function taken(count)
  local found = {}
  for i = 1, 2 * count do found[i] = a[p + i - 1] end
  p = p + 2 * count
  return found
end

local function missing(key)
  overtake(ns, key)
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
    local entry = {d = a[p]}
    p = p + 2
    entry.f = taken(tonumber(a[p - 1]))
    s.new = revise(entry, current)
  elseif kind == 'D' then
    s.new = revise({d = a[p], f = current and current.f or {}}, current)
    p = p + 1
  elseif kind == 'M' then
    p = p + 1
    s.new = revise({d = current and current.d or '', f = taken(tonumber(a[p - 1]))}, current)
  elseif kind == 'U' then
    if not current then return missing(key) end
    p = p + 1
    s.new = revise({d = current.d, f = merged(current.f, taken(tonumber(a[p - 1])))}, current)
  elseif kind == 'X' then
    if not current then return missing(key) end
    s.new, s.cause = false, a[p]
    p = p + 1
  elseif kind == 'V' then
    s.new, s.cause = false, a[p]
    p = p + 1
  elseif kind == 'R' then
    local actual = current and current.r or '0'
    if actual ~= a[p] then return {'REVISION', key, a[p], actual} end
    p = p + 1
  elseif kind == 'I' then
    p = p + 1
    local wanted = taken(tonumber(a[p - 1]))
    local items = current and meta_of(current) or {}
    for i = 1, #wanted, 2 do
      if items[wanted[i]] ~= wanted[i + 1] then return {'ITEMS', key} end
    end
  elseif kind == 'F' then
    local entry = {d = a[p], c = a[p + 1], u = a[p + 2], r = revision}
    p = p + 4
    entry.f = taken(tonumber(a[p - 1]))
    s.new = entry
  else
    error('unknown edit ' .. tostring(kind))
  end
end

for _ = 1, tonumber(a[12]) do
  local refused = edit()
  if refused then return refused end
end
local refused, extra = caches(ns, about[6], a[11], order, state, touch)
if refused then return refused end

-- Writing: nothing fails from here on --------------------------------------------------------------------

local function reindex(key, s, items, facts)
  local old, new = s.old and meta_of(s.old), s.new and meta_of(s.new)
  for _, name in ipairs(items) do
    local field, set = 'p' .. name, ns .. ':i:m' .. name
    local before, after = old and old[field], new and new[field]
    if before ~= after then
      if before then call('ZREM', set, before .. key) end
      if after then call('ZADD', set, 0, after .. key) end
    end
  end
  for _, name in ipairs(facts) do
    local letter, set = name == 'modified' and 'u' or string.sub(name, 1, 1), ns .. ':i:f' .. name
    local before, after = s.old and s.old[letter], s.new and s.new[letter]
    if before ~= after then
      if before then call('ZREM', set, struct.pack('>d', tonumber(before)) .. key) end
      if after then call('ZADD', set, 0, struct.pack('>d', tonumber(after)) .. key) end
    end
  end
end

-- Calls a command with a list of arguments that may be longer than what Lua passes at once.
local function with_all(command, key, arguments)
  local n = #arguments
  if n <= 4000 then
    call(command, key, unpack(arguments))
  else
    for i = 1, n, 4000 do call(command, key, unpack(arguments, i, math.min(i + 3999, n))) end
  end
end

local function write(s)
  local old, new = s.old, s.new
  local written = {'d', new.d, 'c', new.c, 'u', new.u, 'r', new.r}
  local fields = new.f
  for i = 1, #fields do written[8 + i] = fields[i] end
  if old and old.f ~= fields and #old.f > 0 then
    local stays, gone = meta_of(new), {}
    for i = 1, #old.f, 2 do
      if not stays[old.f[i]] then gone[#gone + 1] = old.f[i] end
    end
    if #gone > 0 then with_all('HDEL', s.k, gone) end
  end
  with_all('HSET', s.k, written)
end

local function logged(entry)
  if not entry then return false end
  local found, fields = {entry.c, entry.u, entry.r, entry.d}, entry.f
  for i = 1, #fields do found[4 + i] = fields[i] end
  return found
end

local items, facts
if a[6] ~= '0' then items, facts = cmsgpack.unpack(about[4]), cmsgpack.unpack(about[5]) end
local log = {}
for _, key in ipairs(order) do
  local s = state[key]
  if s.old or s.new then
    if s.new then
      write(s)
      if not s.old then call('ZADD', ns .. ':keys', 0, key) end
    else
      call('DEL', s.k)
      call('ZREM', ns .. ':keys', key)
    end
    if items then reindex(key, s, items, facts) end
    log[#log + 1] = {key, logged(s.old), logged(s.new), s.cause}
  end
end
if a[3] ~= '' then call('DEL', ns .. ':w') end
if #log == 0 then return {'SAME', last, '', extra or ''} end
local packed, id = cmsgpack.pack(log), a[1] .. ':' .. a[2]
call('XADD', ns .. ':log', 'MAXLEN', '~', a[7], revision .. '-0', 'i', id, 'a', a[10], 'c', packed)
call('HSET', ns .. ':about', 'revision', revision, 'id', id)
call('SET', session_key, a[2] .. ' ' .. revision, 'PX', 3600000)
return {'OK', revision, a[8] == '1' and packed or '', extra or ''}
