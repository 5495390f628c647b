-- Operations on the books of caches outside commits; caches.lua is prepended. ARGV 1 is the name of one of
-- the functions below, the rest its arguments. All may be repeated if the reply is lost.
local ns, call = KEYS[1], redis.call

local function bounds()
  local about = call('HGET', ns .. ':about', 'caches')
  return about and cmsgpack.unpack(about) or {}
end

local function bound_of(id)
  for _, bound in ipairs(bounds()) do
    if tostring(bound[1]) == id then return bound end
  end
  return error('there is no such bound')
end

local act = {}

-- Opens the books for the keys with a prefix; returns the number of the bound.
function act.open(prefix, idle)
  local all, found = bounds(), nil
  idle = idle ~= '' and tonumber(idle)
  for _, bound in ipairs(all) do
    if bound[2] == prefix then found = bound end
  end
  if found and found[3] == idle then return found[1] end
  if found then
    found[3] = idle
    books.drop(books.of(ns, found[1]))
  else
    found = {#all + 1, prefix, idle}
    all[#all + 1] = found
  end
  call('HSET', ns .. ':about', 'caches', cmsgpack.pack(all))
  call('HSET', books.of(ns, found[1]), 'fill', prefix == '' and '-' or '[' .. prefix)
  return found[1]
end

function act.fill(id, limit)
  return books.fill(ns, bound_of(id), tonumber(limit)) and 1 or 0
end

function act.use(id, ...)
  local given = {...}
  for i = 1, #given, 2 do
    books.use(books.of(ns, id), given[i], given[i + 1] ~= '' and tonumber(given[i + 1]) or nil)
  end
end

-- Entries that may have expired and are not being loaded: key and cause, alternating.
function act.expired(id, now, limit)
  local c, loading = books.of(ns, id), books.loading(ns)
  now = now == '' and books.time() or tonumber(now)
  while books.begin_idle(c, now, 1000) do end
  local result, keys, causes = {}, books.expired(c, now, tonumber(limit))
  for _, key in ipairs(keys) do
    if not loading[key] then
      result[#result + 1] = key
      result[#result + 1] = causes[key]
    end
  end
  return result
end

-- The time of the last use of an entry of a revision, or false.
function act.last_use(id, key, revision)
  local times = call('HGET', ns .. ':e:' .. key, 't')
  if not times or select(3, struct.unpack('>ddd', times)) ~= tonumber(revision) then return false end
  local node = books.node_of(books.of(ns, id), key)
  return node and node[4] and string.format('%.17g', node[4])
end

function act.may_expire(id)
  local c = books.of(ns, id)
  return (call('EXISTS', c .. ':x') == 1 or call('EXISTS', c .. ':i') == 1) and 1 or 0
end

-- -- loads
-- ----------------------------------------------------------------------------------------------------

-- A lease is its token, its time of expiry, its process, the tags of its load, the number of the call that
-- took it, its thread, and the key that this waits for, if it does.

-- Takes the leases that are free; returns for each the token, or the process that holds it.
function act.take(process, thread, seconds, number, dead, ...)
  local given, result, now = {...}, {}, books.time()
  for _, key in ipairs(call('ZRANGEBYSCORE', ns .. ':l:u', '-inf', string.format('%.17g', now))) do
    books.end_load(ns, key)
  end
  for i = 1, #given, 2 do
    local key = given[i]
    local held = call('HGET', ns .. ':l', key)
    held = held and cmsgpack.unpack(held)
    if held and held[5] == number then
      result[#result + 1] = held[1]
    elseif held and held[3] ~= dead then
      result[#result + 1] = held[3]
    else
      local token, over = call('INCR', ns .. ':l:n'), now + tonumber(seconds)
      call('HSET', ns .. ':l', key, cmsgpack.pack({token, over, process, given[i + 1], number, thread}))
      call('ZADD', ns .. ':l:u', string.format('%.17g', over), key)
      result[#result + 1] = token
    end
  end
  return result
end

-- Returns token and process of a lease that has not expired, or false.
function act.lease(key)
  local held = call('HGET', ns .. ':l', key)
  held = held and cmsgpack.unpack(held)
  return held and {held[1], held[3], held[2] > books.time() and 1 or 0}
end

-- Notes in the leases of a thread the key that it waits for, '' for none. Returns how many leases it has; if
-- the holder of the key waits for one of them, also the process of the holder, and the keys of the circle.
function act.await(process, thread, key)
  local loads, now, own = {}, books.time(), 0
  local flat = call('HGETALL', ns .. ':l')
  for i = 1, #flat, 2 do
    local held = cmsgpack.unpack(flat[i + 1])
    loads[flat[i]] = held
    if held[3] == process and held[6] == thread then
      own, held[7] = own + 1, key
      call('HSET', ns .. ':l', flat[i], cmsgpack.pack(held))
    end
  end
  local circle, seen, awaited = {own, loads[key] and loads[key][3]}, {}, key
  -- Stops at a circle of others, which they find.
  while loads[awaited] and loads[awaited][2] > now and not seen[awaited] do
    local held = loads[awaited]
    seen[awaited], circle[#circle + 1] = true, awaited
    if held[3] == process and held[6] == thread then return circle end
    awaited = held[7]
  end
  return {own}
end

-- Ends leases by key and token, of one process or of any.
function act.release(process, ...)
  local given = {...}
  for i = 1, #given, 2 do
    local held = call('HGET', ns .. ':l', given[i])
    held = held and cmsgpack.unpack(held)
    if held and tostring(held[1]) == given[i + 1] and (process == '' or held[3] == process) then
      books.end_load(ns, given[i])
    end
  end
end

-- Returns the last token issued, and for each lease key, token and tags.
function act.loads()
  local result = {tonumber(call('GET', ns .. ':l:n') or 0)}
  local loads = call('HGETALL', ns .. ':l')
  for i = 1, #loads, 2 do
    local held = cmsgpack.unpack(loads[i + 1])
    result[#result + 1] = loads[i]
    result[#result + 1] = held[1]
    result[#result + 1] = held[4]
  end
  return result
end

-- -- tests
-- ----------------------------------------------------------------------------------------------------

-- Compares the books of a bound with the entries; returns the differences.
function act.check(id)
  local bound, wrong, entries, weight = bound_of(id), {}, 0, 0
  local c = books.of(ns, id)
  local function expect(what, is, should)
    if is ~= should then wrong[#wrong + 1] = what .. ': ' .. tostring(is) .. ', not ' .. tostring(should) end
  end
  local deadlines, idle_ones = 0, 0
  for _, key in ipairs(call('ZRANGE', ns .. ':keys', 0, -1)) do
    if string.sub(key, 1, #bound[2]) == bound[2] then
      local node, weighs, expires, idle = books.node_of(c, key) or {}, books.facts(ns, bound, key)
      expect(key .. ' weighs', node[1], weighs)
      expect(key .. ' expires', node[2], expires)
      expect(key .. ' is idle', node[3], idle)
      expect(key .. ' has a place', call('ZSCORE', c .. ':q', key) and true, true)
      expect(key .. ' has its deadline', tonumber(call('ZSCORE', c .. ':x', key) or nil) or false, expires)
      expect(key .. ' is looked at', call('ZSCORE', c .. ':i', key) and true or false, idle and true)
      entries, weight = entries + 1, weight + weighs
      deadlines, idle_ones = deadlines + (expires and 1 or 0), idle_ones + (idle and 1 or 0)
    end
  end
  expect('nodes', call('HLEN', c .. ':n'), entries)
  expect('places', call('ZCARD', c .. ':q'), entries)
  expect('deadlines', call('ZCARD', c .. ':x'), deadlines)
  expect('idle times', call('ZCARD', c .. ':i'), idle_ones)
  expect('entries', tonumber(call('HGET', c, 'entries') or 0), entries)
  expect('weight', tonumber(call('HGET', c, 'weight') or 0), weight)
  return wrong
end

local arguments = {}
for i = 2, #ARGV do arguments[i - 1] = ARGV[i] end
return act[ARGV[1]](unpack(arguments))
