-- Effects of events in one dataset group: the only place where state is written on their behalf.
--
-- Takes the group's prefix, "{group}:"; apply_batch.lua calls it once a step for each group that has
-- events in it. Returns functions, and the counts of the step. Before `write` only new items,
-- event types, links, tombstones and ids of recent events are stored.
--
-- Numbers that decay are kept as logarithms of forward-decayed sums (Cormode et al. 2009, "Forward
-- decay"): log2(sum of weight * 2^(time / half-life)). They never need rescaling, and two of them
-- compare the same way at any later time.

local prefix = ...

local counts = {events = 0, purchases = 0, duplicates = 0, items = 0, users = 0, sessions = 0, erased = 0}
-- Times of the newest event and of the newest accepted message, in seconds.
local clock, accepted = 0, 0

begin_state(prefix)
local items, pair_lists = open_items(prefix, counts), open_pair_lists(prefix)
local histories, recent_ids = open_histories(prefix), open_recent_ids(prefix)
local erasures = open_erasures(prefix, histories)
local context_counts

-- Opened by the first event with a context: others cost nothing.
local function count_context(item, time, weight, context)
  if next(context) == nil then return end
  context_counts = context_counts or open_context_counts(prefix)
  context_counts.count(item, time, weight, context)
end

local type_codes, n_types = {}, nil

-- One byte that stands for an event type; 0 once the table is full.
local function type_code(name)
  local code = type_codes[name]
  if code then return code end
  code = tonumber(call('HGET', prefix .. 'types', name) or nil)
  if not code then
    n_types = n_types or call('HLEN', prefix .. 'types')
    if n_types >= limits.types then return 0 end
    n_types = n_types + 1
    code = n_types
    call('HSET', prefix .. 'types', name, code)
  end
  type_codes[name] = code
  return code
end

local function apply_event(history, event, is_user)
  local name, time, weight, purchase = event[ITEM_ID], event[TIME], event[LOG2_WEIGHT], event[IS_PURCHASE]
  local id = pack('<I6', event[HASH])
  if histories.has_event(history, id) then
    counts.duplicates = counts.duplicates + 1
    return
  end
  local item, code = 0, type_code(event[TYPE])
  if name ~= '' then item = items.known(name) or items.new(name) end
  local number = is_user and history.number or 0
  if recent_ids.is_repeated(item, time, event[MILLISECOND], code, event[HASH], number) then
    counts.duplicates = counts.duplicates + 1
    return
  end
  if item ~= 0 and not histories.has_item(history, item) then
    histories.remember_owner(item, history.number)
  end
  local at = histories.insert(history, pack('<IIB', item, time, code) .. id, time)
  if item ~= 0 then
    local is_same_item = at > ENTRY_BYTES and unpack_('<I', history.entries, at - ENTRY_BYTES) == item
    if not is_same_item then
      pair_lists.count(item, histories.window_before(history, at, item), weight, time - EPOCH, event[HASH])
    end
    items.count(item, time, weight, purchase)
    count_context(item, time, weight, event[CONTEXT])
  end
  history.count = history.count + 1
  histories.trim(history)
  counts.events = counts.events + 1
  if purchase then counts.purchases = counts.purchases + 1 end
  clock = max(clock, time)
end

-- Applies a message's events, without the erased ones.
local function apply_message(message, erased)
  local n_erased = 0
  for _ in pairs(erased) do n_erased = n_erased + 1 end
  counts.erased = counts.erased + n_erased
  if n_erased == #message[EVENTS] then return end
  local history, is_user = histories.resolve(message)
  if history.is_new then
    history.is_new = nil
    local name = is_user and 'users' or 'sessions'
    counts[name] = counts[name] + 1
  end
  for number, event in ipairs(message[EVENTS]) do
    if not erased[number] then apply_event(history, event, is_user) end
  end
  history.accepted = max(history.accepted, message[ACCEPTED_AT])
  history.changed = true
  accepted = max(accepted, message[ACCEPTED_AT])
end

local function write_counts()
  local key = prefix .. 'counts'
  for name, count in pairs(counts) do
    if count > 0 then call('HINCRBY', key, name, count) end
  end
  if clock > tonumber(call('HGET', key, 'clock') or 0) then call('HSET', key, 'clock', clock) end
  if accepted > tonumber(call('HGET', key, 'accepted_at') or 0) then
    call('HSET', key, 'accepted_at', string.format('%.6f', accepted),
      'applied_at', string.format('%.6f', request.now))
  end
end

local function write()
  pair_lists.write()
  items.write()
  histories.write()
  if context_counts then context_counts.write() end
  write_counts()
end

return {
  erase = erasures.erase, erased_events = erasures.erased_events,
  refused_events = items.refused_events, apply_message = apply_message, write = write,
  counts = counts,
}
