-- Applies deltas of session shards in one item shard, each once: one atomic step.
--
-- KEYS[1]  {group/iNN}:watermarks
-- ARGV[1]  MessagePack of prefix, now and limits as in apply_batch.lua, and
--   shard    this shard's number; shards: how many there are
--   deltas   parts of partitions of deltas, see delta_parts.lua
--
-- Returns the results of the parts as apply_batch.lua, the counts, and how many runs of deltas were
-- left because some before them are missing.

local counts = {items = 0, changes = 0}
local prefix = request.prefix

begin_state(prefix)
local items, pair_lists, owners = open_items(prefix, counts), open_pair_lists(prefix), open_recent_owners(prefix)
local context_counts = opened_late(open_context_counts, prefix)

-- By `change` of pair_lists.lua: each two of `places` are an item and its distance.
local function of_places(change)
  return function(item, places, weight, age, hash)
    for at = 1, #places, 2 do change(item, places[at + 1], places[at], weight, age, hash) end
  end
end

local function of_others(change)
  return function(item, places, weight, age, hash)
    for at = 1, #places, 2 do change(places[at], places[at + 1], item, weight, age, hash) end
  end
end

-- Gives names an index, while there is room: whose name has none later on is refused.
local function name_items(names)
  for _, name in ipairs(names) do
    if not items.known(name) and items.has_room() then items.new(name) end
  end
end

-- The codes of event types, which the first item shard gives.
local function name_types(names)
  for _, name in ipairs(names) do
    local key = prefix .. 'types'
    local n = call('HLEN', key)
    if n < limits.types and call('HEXISTS', key, name) == 0 then call('HSET', key, name, n + 1) end
  end
end

local APPLY = {
  [ITEMS_DELTA] = name_items, [TYPES_DELTA] = name_types,
  [COUNT_DELTA] = items.count, [TAKE_BACK_DELTA] = items.take_back, [CONTEXT_DELTA] = function(...) context_counts.count(...) end,
  [BEFORE_DELTA] = of_places(pair_lists.count_before), [AFTER_DELTA] = of_others(pair_lists.count_after),
  [TAKE_BACK_BEFORE_DELTA] = of_places(pair_lists.take_back_before),
  [TAKE_BACK_AFTER_DELTA] = of_others(pair_lists.take_back_after),
  [OWNER_DELTA] = owners.remember, [FORGET_DELTA] = owners.forget,
}

local function apply_delta(delta)
  counts.changes = counts.changes + 1
  APPLY[delta[1]](unpack(delta, 2))
end

local results = {}
for number, part in ipairs(request.deltas) do
  results[number] = apply_deltas_part(part, function() end, apply_delta)
end
pair_lists.write()
items.write()
owners.write()
write_if_opened(context_counts)
for name, n in pairs(counts) do
  if n > 0 then call('HINCRBY', prefix .. 'counts', name, n) end
end
write_sources()
write_watermarks()
return cmsgpack.pack({results, counts, n_gaps})
