-- What a session shard leaves for other shards: deltas, in an outbox of its own slot.
--
-- Comes behind prelude.lua, and stands in for items.lua, pair_lists.lua,
-- recent_owners.lua and context_counts.lua: an item's
-- counts, neighbours and owners are in item shards. Kinds of deltas and where each goes are in
-- models/state/shards/shard_names.py, and so is the layout of what is written.
--
-- A run is what one step leaves for one shard of the messages of one partition: {source, previous,
-- {{offset, deltas}, ...}}, where the source is this shard and the partition, and `previous` the offset of
-- the source's last deltas before for the same shard. Who applies a run must have applied `previous`: so it
-- notices both what comes again and what is missing. A fourth field has offsets of other sources that must
-- have been applied, too.

local SHARD_NAME = string.format('u%02d', request.shard)

local source, offset, accepted_ms
-- By destination: runs.
local waiting, destinations = {}, {}

-- Begins the deltas of a message.
local function begin_message(field, of_message, accepted_at)
  source, offset = SHARD_NAME .. '/' .. field, of_message
  accepted_ms = floor((accepted_at or 0) * 1000)
end

local function emitted_key(destination) return request.prefix .. 'emitted:' .. destination end

-- The run of the message's partition for a shard.
local function run_for(destination)
  local runs = waiting[destination]
  if not runs then
    runs = {}
    waiting[destination] = runs
    destinations[#destinations + 1] = destination
  end
  local run = runs[#runs]
  if not run or run[1] ~= source then
    run = {source, read_mark(emitted_key(destination), source), {}}
    runs[#runs + 1] = run
  end
  return run
end

local function put(destination, delta)
  local messages = run_for(destination)[3]
  local last = messages[#messages]
  if not last or last[1] ~= offset then
    last = {offset, {}}
    messages[#messages + 1] = last
  end
  last[2][#last[2] + 1] = delta
end

-- Leaves a delta that is applied behind all that has been left so far for the same shard, from whatever
-- partition that came: it takes something back.
local function put_behind_all(destination, delta)
  put(destination, delta)
  local runs, needs = waiting[destination], {}
  local stored = call('HGETALL', emitted_key(destination))
  for at = 1, #stored, 2 do needs[stored[at]] = tonumber(stored[at + 1]) end
  for _, run in ipairs(runs) do needs[run[1]] = run[3][#run[3]][1] end
  needs[source] = nil
  runs[#runs][4] = next(needs) and needs
end

-- Item shards ----------------------------------------------------------------------------------------

local item_shards = {}

local function item_shard(item)
  local name = item_shards[item]
  if not name then
    name = string.format('i%02d', floor(item / STATS_PER_PAGE) % request.shards)
    item_shards[item] = name
  end
  return name
end

-- The shard where an item's list has its pair with another of an event: that of the item, or where the
-- list is split from that event's age on, of a part (models/state/shards/split_lists.py).
local function pair_shard(item, other, age)
  local splits, parts = request.split[item], 1
  if not splits then return item_shard(item) end
  for _, split in ipairs(splits) do
    if age >= split[1] then parts = split[2] end
  end
  return string.format('i%02d', (floor(item / STATS_PER_PAGE) + other % parts) % request.shards)
end

-- Adds an item and its distance to those for a shard.
local function add_place(by_shard, order, name, other, distance)
  local places = by_shard[name]
  if not places then
    places = {}
    by_shard[name], order[#order + 1] = places, name
  end
  places[#places + 1], places[#places + 2] = other, distance
end

-- Deltas of an item and others, at distances: `own` for its list, `of_others` for theirs.
local function put_pairs(own, of_others, put_delta, item, others, weight, age, hash)
  local for_own, own_order, for_others, order = {}, {}, {}, {}
  for distance, other in pairs(others) do
    add_place(for_own, own_order, pair_shard(item, other, age), other, distance)
    add_place(for_others, order, pair_shard(other, item, age), other, distance)
  end
  for _, name in ipairs(own_order) do put_delta(name, {own, item, for_own[name], weight, age, hash}) end
  for _, name in ipairs(order) do put_delta(name, {of_others, item, for_others[name], weight, age, hash}) end
end

local function nothing() end

-- Indexes of the items of a step stand in the request: item shards give them, before the step.
local function open_items()
  local function known(name) return request.indexes[name] or false end
  local function refused_events(events, erased)
    local refused = {}
    for number, event in ipairs(events) do
      local name = event[ITEM_ID]
      if name ~= '' and not erased[number] and not known(name) then refused[#refused + 1] = number - 1 end
    end
    return refused
  end
  local function count(item, time, weight, is_purchase)
    put(item_shard(item), {COUNT_DELTA, item, time, weight, is_purchase})
  end
  local function take_back(item, time, weight, is_purchase)
    put_behind_all(item_shard(item), {TAKE_BACK_DELTA, item, time, weight, is_purchase})
  end
  return {
    known = known, refused_events = refused_events, count = count, take_back = take_back, write = nothing,
  }
end

local function open_recent_owners()
  local function remember(item, number) put(item_shard(item), {OWNER_DELTA, item, number}) end
  local function forget(item, number) put_behind_all(item_shard(item), {FORGET_DELTA, item, number}) end
  return {remember = remember, forget = forget, write = nothing}
end

local function open_pair_lists()
  local function count(item, window, ...)
    if #window > 0 then put_pairs(BEFORE_DELTA, AFTER_DELTA, put, item, window, ...) end
  end
  local function add(item, other, distance, ...)
    put_pairs(BEFORE_DELTA, AFTER_DELTA, put, item, {[distance] = other}, ...)
  end
  local function take_back(item, other, distance, ...)
    put_pairs(TAKE_BACK_BEFORE_DELTA, TAKE_BACK_AFTER_DELTA, put_behind_all, item, {[distance] = other}, ...)
  end
  return {count = count, add = add, take_back = take_back, write = nothing}
end

local function open_context_counts()
  local function count(item, time, weight, context)
    put(item_shard(item), {CONTEXT_DELTA, item, time, weight, context})
  end
  return {count = count, write = nothing}
end

-- Session shards -------------------------------------------------------------------------------------

-- The shard of a user or session; as `owner_shard` in models/state/shards/shard_names.py.
local function owner_shard(name)
  return tonumber(sub(redis.sha1hex(name), 1, 8), 16) % request.shards
end

-- Leaves a delta for the session shard of a user or session, by `put_delta`; false where that is this one.
local function put_elsewhere(put_delta, name, delta)
  local shard = owner_shard(name)
  if shard == request.shard then return false end
  put_delta(string.format('u%02d', shard), delta)
  return true
end

-- The indexes and type codes that a forwarded message needs where it goes.
local function names_of(events)
  local indexes, codes = {}, {}
  for _, event in ipairs(events) do
    indexes[event[ITEM_ID]], codes[event[TYPE]] = request.indexes[event[ITEM_ID]], request.types[event[TYPE]]
  end
  return indexes, codes
end

-- Writes the outbox, of which the worker publishes what this returns: names of shards, each with a value.
local function write_outbox()
  local written = {}
  for _, destination in ipairs(destinations) do
    local runs, head = waiting[destination], {}
    for n, run in ipairs(runs) do
      local last = run[3][#run[3]][1]
      local needs = {}
      for other, mark in pairs(run[4] or {}) do needs[#needs + 1] = {other, mark} end
      head[n] = {run[1], run[2], last, needs}
      call('HSET', emitted_key(destination), run[1], string.format('%.0f', last))
    end
    head = cmsgpack.pack(head)
    local value = pack('<I', #head) .. head .. cmsgpack.pack(runs)
    call('RPUSH', request.prefix .. 'outbox:' .. destination, value)
    written[#written + 1], written[#written + 2] = destination, value
  end
  return written
end

outbox = {
  link = function(session, shard, user)
    put_elsewhere(put_behind_all, session, {LINK_DELTA, session, shard, user, accepted_ms})
  end,
  unlink = function(session, shard, user)
    put_elsewhere(put_behind_all, session, {UNLINK_DELTA, session, shard, user})
  end,
  unlinked = function(session, shard, user)
    put_elsewhere(put_behind_all, user, {UNLINKED_DELTA, session, shard, user})
  end,
  erase = function(session, shard, user, until_ms)
    return put_elsewhere(put_behind_all, session, {ERASE_DELTA, session, shard, user, until_ms})
  end,
  join = function(user, anonymous, ids)
    return put_elsewhere(put, user,
      {JOIN_DELTA, user, pack_history(anonymous), ids, call('HGETALL', request.prefix .. 'types')})
  end,
  forward = function(user, message)
    local indexes, codes = names_of(message[EVENTS])
    return put_elsewhere(put, user, {FORWARD_DELTA, user, message, indexes, codes})
  end,
}
