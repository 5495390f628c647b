-- A page of an index: keys, and their entries without data, with the log entries since the view.
--
-- ARGV: 3 version of the list of indexes, 4 number of the source to read, or 0 for the one with the fewest
-- members, 5 '1' to read it in reverse, 6 maximum number of keys, 7 maximum number of members to read, 8 '1'
-- for entries, 9 number of members, fewer than those of the source to read, with which another source makes
-- this query needless, or 0, 10 number of sources, then the sources, each:
--   set, kind of its members ('key', 'fact' or 'item'), field of the position in entries or '', number of
--   spans, then low and high of each: members from low to below high, the spans in order and disjoint.
-- A member of one source is skipped if another source that has a field does not have it.
--
-- Answers: INDEXES | FEWER, if another source has as few | source, keys, entries, number of the span in which
-- it stopped, the last member that was read; 0 if there are no more.

local function key_of(member, kind)
  if kind == 'key' then return member end
  if kind == 'fact' then return string.sub(member, 9) end
  -- A zero followed by 0xFF belongs to the position; a zero at the end precedes an empty key.
  local ends = string.find(member, '%z[^\255]') or #member
  return string.sub(member, ends + 1)
end

-- Compares bytes; Lua's own order is that of the locale.
local function is_below(one, other)
  for i = 1, math.min(#one, #other) do
    local x, y = string.byte(one, i), string.byte(other, i)
    if x ~= y then return x < y end
  end
  return #one < #other
end

local function is_within(position, spans)
  for _, span in ipairs(spans) do
    -- The key after the position in a member is below 0xFF: so comparing the position is enough.
    if not is_below(position, span[1]) and is_below(position, span[2]) then return true end
  end
  return false
end

local function without_data(hash)
  local flat
  if call('HSTRLEN', hash, 'd') <= 1024 then
    flat = call('HGETALL', hash)
  else
    local names = {}
    for _, name in ipairs(call('HKEYS', hash)) do
      if name ~= 'd' then names[#names + 1] = name end
    end
    flat = {}
    for first = 1, #names, 1000 do
      local last = math.min(first + 999, #names)
      local values = call('HMGET', hash, unpack(names, first, last))
      for i = first, last do
        flat[2 * i - 1] = names[i]
        flat[2 * i] = values[i - first + 1]
      end
    end
  end
  local kept, n = {}, 0
  for i = 1, #flat, 2 do
    local name = flat[i]
    if name ~= 'd' and string.byte(name) ~= 112 then
      kept[n + 1] = name
      n = n + 2
      kept[n] = flat[i + 1]
    end
  end
  return kept
end

local function sources()
  local found, p = {}, 11
  for i = 1, tonumber(a[10]) do
    local source = {set = ns .. ':' .. a[p], kind = a[p + 1], field = a[p + 2], spans = {}}
    for j = 1, tonumber(a[p + 3]) do source.spans[j] = {a[p + 2 + 2 * j], a[p + 3 + 2 * j]} end
    p = p + 4 + 2 * #source.spans
    found[i] = source
  end
  return found
end

local function count_of(source)
  local count = 0
  for _, span in ipairs(source.spans) do
    count = count + call('ZLEXCOUNT', source.set, '[' .. span[1], '(' .. span[2])
  end
  return count
end

-- The source to read; nil if another one than the requested one has few members.
local function chosen(all)
  local wanted, few = tonumber(a[4]), tonumber(a[9])
  if #all == 1 or (wanted > 0 and few == 0) then return math.max(wanted, 1) end
  local least, best = nil, 1
  for i, source in ipairs(all) do
    local count = count_of(source)
    if not least or count < least then least, best = count, i end
  end
  if wanted == 0 or best == wanted then return best end
  return least > few and wanted or nil
end

local function page(all, number)
  local source, backward = all[number], a[5] == '1'
  local others, fields = {}, {}
  for i, other in ipairs(all) do
    if i ~= number and other.field ~= '' then
      others[#others + 1] = other
      fields[#fields + 1] = other.field
    end
  end
  local keys, entries, left = {}, {}, tonumber(a[7])
  local wanted, most = a[8] == '1', tonumber(a[6])

  local function take(key)
    local hash = ns .. ':e:' .. key
    if #fields > 0 then
      local positions = call('HMGET', hash, unpack(fields))
      for i, other in ipairs(others) do
        if not positions[i] or not is_within(positions[i], other.spans) then return end
      end
    end
    keys[#keys + 1] = key
    if wanted then entries[#entries + 1] = without_data(hash) end
  end

  local command = backward and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'
  local first, last, step = 1, #source.spans, 1
  if backward then first, last, step = last, 1, -1 end
  for i = first, last, step do
    local low, high = '[' .. source.spans[i][1], '(' .. source.spans[i][2]
    if backward then low, high = high, low end
    -- At most the number of keys wanted at once: later pages replace those that other sources exclude.
    local member
    repeat
      local count = math.min(most - #keys, left)
      if count <= 0 then return {number, keys, entries, i, member or ''} end
      local members = call(command, source.set, low, high, 'LIMIT', 0, count)
      for _, each in ipairs(members) do take(key_of(each, source.kind)) end
      left = left - #members
      if #members > 0 then
        member = members[#members]
        low = '(' .. member
      end
    until #members < count
  end
  return {number, keys, entries, 0, ''}
end

local head = since(a[1], a[2])
if head[1] == 'OK' then
  if (call('HGET', ns .. ':about', 'version') or '0') ~= a[3] then
    head[5] = 'INDEXES'
  else
    local all = sources()
    local number = chosen(all)
    head[5] = number and page(all, number) or 'FEWER'
  end
end
return head
