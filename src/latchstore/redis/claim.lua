-- The lease of the first entry in a range of an index, as a work queue claims a job, by the server's clock.
--
-- The range is that of texts with the prefix `ready`. A text with the prefix `due` continues with a time in
-- 20 digits of microseconds, and blocks the claim once that time has come. The text of the entry found
-- becomes `due` .. the end of the lease .. '/leased/' .. the part of its text after the last slash, and a
-- counter of the entry is incremented.
--
-- Arguments from `p` on: item with the text, item with the counter, `due`, low and high of the members with
-- that prefix, low and high of those with the prefix `ready`, microseconds of the lease, and of now, or ''.
-- Returns the answer if there is nothing to lease, or nil, the state of the entry's key and its fields.
local function claim(ns, a, p, touch, fields_of)
  local call = redis.call
  local item, counter = a[p], a[p + 1]
  local indexed, counter_indexed = false, false
  for _, name in ipairs(cmsgpack.unpack(call('HGET', ns .. ':about', 'items') or '\144')) do
    if name == item then indexed = true end
    if name == counter then counter_indexed = true end
  end
  if not indexed then return {'UNINDEXED'} end
  local function first(low, high)
    return call('ZRANGEBYLEX', ns .. ':i:m' .. item, '[' .. low, '(' .. high, 'LIMIT', 0, 1)[1]
  end
  local now = tonumber(a[p + 8])
  if not now then
    local time = call('TIME')
    now = time[1] * 1000000 + time[2]
  end
  local due = first(a[p + 3], a[p + 4])
  if due and tonumber(string.sub(due, #a[p + 3] + 1, #a[p + 3] + 20)) <= now then return {'DUE'} end
  local member = first(a[p + 5], a[p + 6])
  if not member then return {'NONE'} end

  local ends = string.find(member, '%z[^\255]') or #member
  local s = touch(string.sub(member, ends + 1))
  local fields = fields_of(s.new)
  local place = {}
  for i = 1, #fields, 2 do place[fields[i]] = i + 1 end
  local function put(name, value)
    if place[name] then
      fields[place[name]] = value
    else
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  local text = cmsgpack.unpack(fields[place['m' .. item]])
  local count = place['m' .. counter]
  count = (count and cmsgpack.unpack(fields[count]) or 0) + 1
  -- The limit has 20 digits and is exact enough: the longest time that a queue uses.
  local ending = string.format('%020.0f', math.min(now + a[p + 7], 1e17))
  text = a[p + 2] .. ending .. '/leased/' .. string.match(text, '[^/]*$')
  put('m' .. item, cmsgpack.pack(text))
  put('p' .. item, text_position(text))
  put('m' .. counter, cmsgpack.pack(count))
  if counter_indexed then put('p' .. counter, number_position(count)) end
  return nil, s, fields
end
