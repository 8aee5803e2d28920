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

local counts = {events = 0, imported = 0, purchases = 0, negatives = 0, undone = 0, undone_purchases = 0, duplicates = 0, items = 0, users = 0, sessions = 0, erased = 0}
-- Times of the newest event and of the newest accepted message, in seconds.
local clock, accepted = 0, 0

begin_state(prefix)
local items, pair_lists = open_items(prefix, counts), open_pair_lists(prefix)
local histories, recent_ids = open_histories(prefix), open_recent_ids(prefix)
local has_outcomes, outcomes = limits.outcome_window > 0, opened_late(open_outcomes, prefix, histories)
local erasures = open_erasures(prefix, histories, outcomes)
local withdrawals = opened_late(open_withdrawals, prefix, histories, items, pair_lists, outcomes, counts)
local context_counts = opened_late(open_context_counts, prefix)

local type_codes, n_types = {}, nil

local function known_types()
  n_types = n_types or call('HLEN', prefix .. 'types')
  return n_types
end

-- One byte that stands for an event type; 0 once the table is full.
local function type_code(name)
  local code = type_codes[name]
  if code then return code end
  code = tonumber(call('HGET', prefix .. 'types', name) or nil)
  if not code then
    if known_types() >= limits.types then return 0 end
    n_types = n_types + 1
    code = n_types
    call('HSET', prefix .. 'types', name, code)
  end
  type_codes[name] = code
  return code
end

-- The type of an event in its history, by its type's code: one of their own for imported events, where
-- the group has so few types that no other type has it.
local function entry_type(event, code)
  local is_told_apart = event[IS_IMPORTED] and code > 0 and code <= limits.types
  return is_told_apart and IMPORTED - code > known_types() and IMPORTED - code or code
end

local function is_imported(history, k)
  return type_at(history, k) > max(limits.types, known_types())
end

-- An imported event that is sent live, too, is no longer one that a later import may replace.
local function keep_as_live(history, k)
  set_type(history, k, IMPORTED - type_at(history, k))
end

-- Removes an imported event that a later import does not have.
local function remove_imported(history, event)
  local k = find_event(history, pack('<I5', event[UNDOES]))
  if not k or not is_imported(history, k) then return end
  local time, type = times_of(history)[k], type_at(history, k)
  local item = withdrawals.remove(history, k, event[TYPES])
  recent_ids.forget(item, time, event[MILLISECOND], IMPORTED - type, event[UNDOES], history.number)
end

-- Notes a negative event in its owner's history. It counts as nothing positive: no co-visitation, no
-- popularity, no owner of the item.
local function apply_negative(history, event, item, code, id)
  insert_event(history, item, event[EFFECT], event[TIME], entry_type(event, code), id)
  if event[EFFECT] == TAKES_BACK_CART or event[EFFECT] == TAKES_BACK_PURCHASE then
    withdrawals.settle(history, item, event[TYPES])
  end
  history.count = history.count + 1
  histories.trim(history)
  counts.events = counts.events + 1
  counts.negatives = counts.negatives + 1
  if event[IS_IMPORTED] then counts.imported = counts.imported + 1 end
  clock = max(clock, event[TIME])
end

local function apply_event(history, event, is_user)
  if event[UNDOES] > 0 and event[IS_IMPORTED] then return remove_imported(history, event) end
  if event[UNDOES] > 0 then
    local is_new = withdrawals.undo(history, pack('<I5', event[UNDOES]), event[TIME], event[TYPES])
    if not is_new then counts.duplicates = counts.duplicates + 1 end
    return
  end
  local name, time, weight, purchase = event[ITEM_ID], event[TIME], event[LOG2_WEIGHT], event[IS_PURCHASE]
  local id = pack('<I5', event[HASH])
  local present = histories.has_event(history, id)
  if present then
    if present ~= true and not event[IS_IMPORTED] and is_imported(history, present) then
      keep_as_live(history, present)
    end
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
  if item ~= 0 and event[EFFECT] > 0 then
    apply_negative(history, event, item, code, id)
    return
  end
  if item ~= 0 and not histories.has_item(history, item) then
    histories.remember_owner(item, history.number)
  end
  local k = insert_event(history, item, 0, time, entry_type(event, code), id)
  if item ~= 0 then
    if histories.item_before(history, k) ~= item then
      pair_lists.count(item, histories.window_before(history, k, item), weight, time - EPOCH, event[HASH])
    end
    items.count(item, time, weight, purchase)
    if next(event[CONTEXT]) then context_counts.count(item, time, weight, event[CONTEXT]) end
  end
  history.count = history.count + 1
  histories.trim(history)
  if item ~= 0 and has_outcomes then outcomes.take(history, item, time, event) end
  counts.events = counts.events + 1
  if event[IS_IMPORTED] then counts.imported = counts.imported + 1 end
  if purchase then counts.purchases = counts.purchases + 1 end
  clock = max(clock, time)
end

-- Applies a message's events, without the erased ones.
local function apply_message(message, erased)
  local n_erased = 0
  for _ in pairs(erased) do n_erased = n_erased + 1 end
  counts.erased = counts.erased + n_erased
  if n_erased == #message[EVENTS] then return end
  local history, is_user, is_joined = histories.resolve(message)
  if is_joined and has_outcomes then outcomes.join(message[SESSION_ID], history) end
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
    if name == 'events' then count = count - counts.undone end
    if name == 'purchases' then count = count - counts.undone_purchases end
    if count ~= 0 then call('HINCRBY', key, name, count) end
  end
  local times = call('HMGET', key, 'clock', 'accepted_at')
  if clock > tonumber(times[1] or 0) then call('HSET', key, 'clock', clock) end
  if accepted > tonumber(times[2] or 0) then
    call('HSET', key, 'accepted_at', string.format('%.6f', accepted),
      'applied_at', string.format('%.6f', request.now))
  end
end

local function write()
  pair_lists.write()
  items.write()
  histories.write()
  write_if_opened(outcomes)
  write_if_opened(context_counts)
  write_counts()
end

return {
  erase = erasures.erase, erased_events = erasures.erased_events,
  refused_events = items.refused_events, apply_message = apply_message, write = write,
  histories = histories, erasures = erasures, counts = counts,
}
