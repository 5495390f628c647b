-- The books of a namespace's caches: weights of entries, times of expiry, the order of eviction, and running
-- loads. `books.py` has the keys and the rules. This file is prepended to commit.lua and to books.lua.
--
--   caches(ns, about, argument, order, state, touch): a part of each commit, between its decision and its first
--     write. Evicts by `touch`. Returns a refusal, or nil and the client's answer.
--   overtake(ns, key): ends the load of a key for which an edit has found no entry.
--   books: functions for books.lua.
local caches, overtake, books
do
  -- As in engine/entry_facts.py.
  local OVERHEAD, METADATA_OVERHEAD = 440, 240
  local WEIGHT, EXPIRES, IDLE, STALE = 'mcache_weight', 'mcache_expires', 'mcache_idle', 'mcache_stale'
  -- Maximum expired entries that an ordinary commit evicts.
  local SWEPT_BY_THE_WAY = 16

  local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
  books = {}

  function books.time()
    local t = call('TIME')
    return tonumber(t[1]) + tonumber(t[2]) / 1000000
  end

  local function of(ns, id) return ns .. ':c:' .. id end

  local function is_own(bound, key) return string.sub(key, 1, #bound[2]) == bound[2] end

  -- A number as MessagePack, and whether it is an int: any program may write anything there.
  local function number(packed)
    local first = packed and string.byte(packed)
    if not first or not (first < 0x80 or first >= 0xe0 or (first >= 0xca and first <= 0xd3)) then return nil end
    local value = unpacked(packed)
    if value ~= value or value == math.huge then return nil end
    return value, first ~= 0xca and first ~= 0xcb
  end

  -- The weight of an entry, its time of expiry, and its idle time. `fields` are those of its hash, in one
  -- flat list; fields of metadata items begin with an m.
  local function facts(key, size, fields, idle)
    local items, weight, has_items = {}, OVERHEAD + #key + size, false
    for i = 1, #fields, 2 do
      local name, value = fields[i], fields[i + 1]
      if string.byte(name) == 0x6d then
        items[name], has_items = value, true
        weight = weight + #name - 1 + #value
      end
    end
    if not has_items then return weight, false, idle end
    weight = weight + METADATA_OVERHEAD
    local given, is_int = number(items[WEIGHT])
    if is_int and given >= 0 and given < 2 ^ 63 then weight = given end
    local stale = math.max(0, number(items[STALE]) or 0)
    local expires = number(items[EXPIRES])
    if items[IDLE] then
      idle = number(items[IDLE])
      if idle and idle <= 0 then idle = false end
    end
    return weight, expires and expires + stale or false, idle and idle + stale or false
  end

  -- A node has weight, time of expiry, idle time, and time of last use: false if never.
  local function node_of(c, key)
    local packed = call('HGET', c .. ':n', key)
    return packed and unpacked(packed)
  end

  local function score(x) return string.format('%.17g', x) end

  local function set_node(c, key, node, before)
    call('HSET', c .. ':n', key, pack(node))
    if node[2] then call('ZADD', c .. ':x', score(node[2]), key)
    elseif before and before[2] then call('ZREM', c .. ':x', key) end
    if node[3] then call('ZADD', c .. ':i', node[4] and score(node[4] + node[3]) or '-inf', key)
    elseif before and before[3] then call('ZREM', c .. ':i', key) end
  end

  -- Record an entry; return the changes of the numbers of entries and bytes.
  local function note(c, key, weight, expires, idle, used)
    local before = node_of(c, key)
    if not before then call('ZADD', c .. ':q', call('HINCRBY', c, 'next', 1), key) end
    set_node(c, key, {weight, expires, idle, used}, before)
    return before and 0 or 1, weight - (before and before[1] or 0)
  end

  local function forget(c, key)
    local before = node_of(c, key)
    if not before then return 0, 0 end
    call('HDEL', c .. ':n', key)
    call('ZREM', c .. ':q', key)
    call('SREM', c .. ':v', key)
    if before[2] then call('ZREM', c .. ':x', key) end
    if before[3] then call('ZREM', c .. ':i', key) end
    return -1, -before[1]
  end

  local function add_totals(c, entries, weight)
    if entries ~= 0 then call('HINCRBY', c, 'entries', entries) end
    if weight ~= 0 then call('HINCRBY', c, 'weight', string.format('%.0f', weight)) end
  end

  function books.use(c, key, time)
    local node = node_of(c, key)
    if not node then return end
    call('SADD', c .. ':v', key)
    if time and node[3] and (not node[4] or node[4] < time) then
      node[4] = time
      set_node(c, key, node, node)
    end
  end

  -- Start the idle times of at most `limit` entries; return whether there may be more.
  function books.begin_idle(c, now, limit)
    local keys = call('ZRANGEBYSCORE', c .. ':i', '-inf', '-inf', 'LIMIT', 0, limit)
    for _, key in ipairs(keys) do
      local node = node_of(c, key)
      node[4] = now
      set_node(c, key, node, node)
    end
    return #keys == limit
  end

  -- Some expired entries, each with the cause.
  function books.expired(c, now, limit)
    local found, causes = {}, {}
    for _, kind in ipairs({{':x', 'expired'}, {':i', 'idle'}}) do
      for _, key in ipairs(call('ZRANGEBYSCORE', c .. kind[1], '-inf', score(now), 'LIMIT', 0, limit)) do
        if not causes[key] then found[#found + 1], causes[key] = key, kind[2] end
      end
    end
    return found, causes
  end

  function books.loading(ns)
    local found = {}
    for _, key in ipairs(call('HKEYS', ns .. ':l')) do found[key] = true end
    return found
  end

  -- SIEVE (cache/policies.py): returns a function that picks the next key to evict, nil if only spared keys
  -- are left, and a function that stores the position of the hand.
  local function sieve(c, hand, is_spared)
    local page, at, chosen = {}, 1, {}
    local function choose()
      local beginnings = 0
      -- From the hand to the new end; through all, which clears the visited flags; through all again.
      while beginnings < 3 do
        while page[at] do
          local key = page[at]
          hand, at = page[at + 1], at + 2
          if call('SREM', c .. ':v', key) == 0 and not chosen[key] and not is_spared(key) then
            chosen[key] = true
            return key
          end
        end
        page, at = call('ZRANGEBYSCORE', c .. ':q', '(' .. hand, '+inf', 'WITHSCORES', 'LIMIT', 0, 32), 1
        if #page == 0 then hand, beginnings = '0', beginnings + 1 end
      end
    end
    local function finish()
      -- From the new end the hand returns to the old end, although the commit will add entries at the new
      -- end.
      if #call('ZRANGEBYSCORE', c .. ':q', '(' .. hand, '+inf', 'LIMIT', 0, 1) == 0 then hand = '0' end
      call('HSET', c, 'hand', hand)
      return hand
    end
    return choose, finish
  end

  -- -- a part of each commit
  -- ---------------------------------------------------------------------------------

  -- The effect of a commit on a bound: totals, and the keys that it writes, each with its weight.
  local function plan(ns, bound, limits, order, state)
    local c = of(ns, bound[1])
    local totals = call('HMGET', c, 'entries', 'weight', 'hand')
    local p = {c = c, bound = bound, limits = limits, hand = totals[3] or '0', keys = {}, weights = {},
               entries = tonumber(totals[1] or 0), weight = tonumber(totals[2] or 0)}
    for _, key in ipairs(order) do
      local s = state[key]
      if is_own(bound, key) then
        local node = s.old and node_of(c, key)
        if node then p.entries, p.weight = p.entries - 1, p.weight - node[1] end
        if s.new then
          local weight = facts(key, #s.d, s.new, false)
          if limits.max_bytes and weight > limits.max_bytes then
            return nil, {'CACHE', 'HEAVY', key, string.format('%.0f', weight), tostring(limits.max_bytes)}
          end
          p.entries, p.weight = p.entries + 1, p.weight + weight
          p.keys[#p.keys + 1], p.weights[key] = key, weight
        end
      end
    end
    return p
  end

  local function is_exceeded(p)
    return p.limits.max_entries and p.entries > p.limits.max_entries
      or p.limits.max_bytes and p.weight > p.limits.max_bytes
  end

  local function evict_expired(p, loading, state, evict)
    local now, limit = p.limits.now, p.limits.sweep or SWEPT_BY_THE_WAY
    if now == true then now = books.time() end
    p.now = now
    p.more = books.begin_idle(p.c, now, limit)
    local keys, causes = books.expired(p.c, now, limit)
    if #keys == 0 then return 0 end
    loading = loading()
    local evicted = 0
    for _, key in ipairs(keys) do
      if not state[key] and not loading[key] then
        evict(key, causes[key])
        evicted = evicted + 1
      end
    end
    p.more = p.more or (#keys >= limit and evicted > 0)
    return evicted
  end

  local function evict_for_room(p, loading, state, evict, evict_written)
    if not is_exceeded(p) then return end
    loading = loading()
    local left = p.limits.trim or math.huge
    local function is_written(key) return state[key] end
    -- A key that is being loaded is spared if another can be evicted: its eviction would end the lease.
    for _, is_spared in ipairs({function(key) return state[key] or loading[key] end, is_written}) do
      local choose, finish = sieve(p.c, p.hand, is_spared)
      while is_exceeded(p) and left > 0 do
        local key = choose()
        if not key then break end
        evict(key, 'size')
        left = left - 1
      end
      p.hand = finish()
      if not is_exceeded(p) or left == 0 then break end
    end
    if left == 0 and is_exceeded(p) then
      p.more = true
      return
    end
    -- Then keys that the commit itself writes, in order.
    for _, key in ipairs(p.keys) do
      if not is_exceeded(p) then break end
      if state[key].new then evict_written(key) end
    end
  end

  local function end_load(ns, key)
    call('HDEL', ns .. ':l', key)
    call('ZREM', ns .. ':l:u', key)
  end

  function overtake(ns, key)
    if call('HEXISTS', ns .. ':l', key) == 1 then end_load(ns, key) end
  end

  -- End revoked leases, and those taken since the client has read the list of leases.
  local function revoke(ns, given)
    local revoked = {}
    for _, token in ipairs(given.revoked) do revoked[token] = true end
    local loads = call('HGETALL', ns .. ':l')
    for i = 1, #loads, 2 do
      local token = unpacked(loads[i + 1])[1]
      if revoked[token] or token > given.last then end_load(ns, loads[i]) end
    end
  end

  local function is_fenced(ns, given)
    for i = 1, #given.fences, 2 do
      local held = call('HGET', ns .. ':l', given.fences[i])
      held = held and unpacked(held)
      -- A forked child of a loader has the token as well, but no lease.
      if not held or held[1] ~= given.fences[i + 1] or held[3] ~= given.me then return given.fences[i] end
    end
  end

  local function keep(ns, bounds, nows, order, state)
    local has_loads = call('EXISTS', ns .. ':l') == 1
    for _, bound in ipairs(bounds) do
      local c, entries, weight = of(ns, bound[1]), 0, 0
      for _, key in ipairs(order) do
        local s = state[key]
        if is_own(bound, key) then
          local more, heavier = 0, 0
          if s.new then
            local weighs, expires, idle = facts(key, #s.d, s.new, bound[3])
            more, heavier = note(c, key, weighs, expires, idle, idle and nows[bound[1]] or false)
          elseif s.old then
            more, heavier = forget(c, key)
            if s.cause ~= '' then call('HINCRBY', c, 'x:' .. s.cause, 1) end
          end
          entries, weight = entries + more, weight + heavier
        end
      end
      add_totals(c, entries, weight)
    end
    if has_loads then
      for _, key in ipairs(order) do
        if state[key].old or state[key].new then end_load(ns, key) end
      end
    end
  end

  local function make_room(ns, by_id, given, order, state, touch)
    local nows, plans, kept_loading = {}, {}, nil
    -- Everything that may be refused comes before the first change.
    for _, limits in ipairs(given.bounds) do
      local bound = by_id[limits.id]
      if not bound then return nil, {'CACHE', 'BOUNDS'} end
      local p, refused = plan(ns, bound, limits, order, state)
      if refused then return nil, refused end
      plans[#plans + 1] = p
    end
    local function loading()
      kept_loading = kept_loading or books.loading(ns)
      return kept_loading
    end
    -- An entry is evicted from all bounds that contain it.
    local function evict(key, cause)
      local s = touch(key)
      s.new, s.cause = false, cause
      for _, p in ipairs(plans) do
        if is_own(p.bound, key) then
          local node = node_of(p.c, key)
          if node then p.entries, p.weight = p.entries - 1, p.weight - node[1] end
        end
      end
    end
    local function evict_written(key)
      state[key].new, state[key].cause = false, 'size'
      for _, p in ipairs(plans) do
        local weight = p.weights[key]
        if weight then p.entries, p.weight = p.entries - 1, p.weight - weight end
      end
    end
    for _, p in ipairs(plans) do
      for i = 1, #p.limits.hits, 2 do books.use(p.c, p.limits.hits[i], p.limits.hits[i + 1]) end
    end
    local more, expired = false, 0
    for _, p in ipairs(plans) do
      if p.limits.now then
        expired = expired + evict_expired(p, loading, state, evict)
        nows[p.bound[1]] = p.now
      end
      evict_for_room(p, loading, state, evict, evict_written)
      more = more or p.more
    end
    return nows, nil, pack({expired, more and 1 or 0})
  end

  function caches(ns, about, argument, order, state, touch)
    local bounds, by_id, nows, extra = about and unpacked(about) or {}, {}, {}, ''
    for _, bound in ipairs(bounds) do by_id[bound[1]] = bound end
    if argument ~= '' then
      local given, refused = unpacked(argument), nil
      local late = is_fenced(ns, given)
      if late then return {'CACHE', 'LATE', late} end
      nows, refused, extra = make_room(ns, by_id, given, order, state, touch)
      if refused then return refused end
      if given.last then revoke(ns, given) end
    end
    keep(ns, bounds, nows, order, state)
    return nil, extra
  end

  -- -- for other scripts
  -- -------------------------------------------------------------------------------------

  -- Record some of the entries older than a bound; return whether those were all.
  function books.fill(ns, bound, limit)
    local c = of(ns, bound[1])
    local at = call('HGET', c, 'fill')
    if not at then return true end
    local keys = call('ZRANGEBYLEX', ns .. ':keys', at, '+', 'LIMIT', 0, limit)
    local entries, weight = 0, 0
    for _, key in ipairs(keys) do
      if is_own(bound, key) and call('HEXISTS', c .. ':n', key) == 0 then
        local e = ns .. ':e:' .. key
        local weighs, expires, idle = facts(key, call('HSTRLEN', e, 'd'), books.items_of(e), bound[3])
        local more, heavier = note(c, key, weighs, expires, idle, false)
        entries, weight = entries + more, weight + heavier
      end
    end
    add_totals(c, entries, weight)
    local is_all = #keys < limit or not is_own(bound, keys[#keys])
    if is_all then call('HDEL', c, 'fill') else call('HSET', c, 'fill', '(' .. keys[#keys]) end
    return is_all
  end

  function books.items_of(e)
    local items = {}
    for _, name in ipairs(call('HKEYS', e)) do
      if string.byte(name) == 0x6d then
        items[#items + 1] = name
        items[#items + 1] = call('HGET', e, name)
      end
    end
    return items
  end

  function books.drop(c)
    for _, set in ipairs({':q', ':v', ':x', ':i', ':n'}) do call('UNLINK', c .. set) end
    call('HDEL', c, 'entries', 'weight', 'hand', 'next')
  end

  -- The expected books of an entry, for tests.
  function books.facts(ns, bound, key)
    local e = ns .. ':e:' .. key
    return facts(key, call('HSTRLEN', e, 'd'), books.items_of(e), bound[3])
  end

  books.of, books.node_of, books.end_load = of, node_of, end_load
end
