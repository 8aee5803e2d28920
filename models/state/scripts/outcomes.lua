-- Outcomes of served lists in one group: which of their items were taken, and counts by hour and day.
--
-- Takes the group's prefix, and its histories. A list is of the owner it was served to, or "r:<recommendationId>".
--
-- An event counts for one list at most: the one that it names, whoever asked for that; else the last that showed the
-- item to the event's owner within the window before it. What counts follows from the lists, the history and the
-- named events alone, and is found again whenever one of them is added: so it makes no difference in which order
-- lists and events come. Of more lists and events than are kept, what the older ones had counted stays.
--
-- A record of an owner, as MessagePack:
--   lists    {id, time in ms, dimensions, codes of sources, items, outcomes, experiment, arm, unit,
--             deadline}, oldest first; items as text that is searched for an event's item, ",12,=tent,":
--             indexes, or names that had none yet when a replay came to the list
--   named    {hash, id, value, item} of own events that name a list, or have a value
--   foreign  {id, item, time, is_purchase, value, hash} of events of others that name one of the lists;
--            they count no more once the other's session has become this user's
-- An outcome is {position, clicked, bought, value} and the last three again, of events before the
-- deadline only, which is that of an experiment. Values are integers, in thousandths.

local prefix, histories = ...

local LIST_ID, SERVED_MS, DIMENSIONS, SOURCES, SHOWN, TAKEN, EXPERIMENT, ARM, UNIT, DEADLINE =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local FIRST_MEASURE, LAST_MEASURE, IN_TIME = 2, 4, 3

local is_on, window = limits.outcome_window > 0, limits.outcome_window

local counts = {lists = 0, repeated = 0, unfollowed = 0, erased = 0}

local outcome_sums, exposures = opened_late(open_outcome_sums, prefix), opened_late(open_exposures, prefix)
local followed = opened_late(open_followed_ids, prefix)

-- Adds to answers (1), impressions (2), clicks (3), conversions (4) or value (5) of a list: in all, and
-- of an item by the code of its source and by its position.
local function add_counts(list, position, at, delta)
  local source = position and sub(list[SOURCES], position, position)
  outcome_sums.add(list[SERVED_MS], list[DIMENSIONS], source, position, at, delta)
end

-- Records of owners --------------------------------------------------------------------------------

local records = {}

local function record_of(owner)
  local record = records[owner]
  if not record then
    local raw = call('GET', prefix .. 'shown:' .. owner)
    record = {lists = {}, named = {}, foreign = {}, by_hash = {}, owner = owner}
    if raw then record.lists, record.named, record.foreign = unpack(cmsgpack.unpack(raw)) end
    for _, one in ipairs(record.named) do record.by_hash[one[1]] = one end
    records[owner] = record
  end
  return record
end

local function trim_front(list, limit)
  while #list > limit do table.remove(list, 1) end
end

local function is_empty(record)
  return #record.lists + #record.named + #record.foreign == 0
end

local function write_records()
  for owner, record in pairs(records) do
    local key = prefix .. 'shown:' .. owner
    if record.changed and is_empty(record) then
      call('DEL', key)
    elseif record.changed then
      call('SET', key, cmsgpack.pack({record.lists, record.named, record.foreign}), 'EX', 2 * window)
    end
  end
end

-- The history behind an owner's record; empty for a list of nobody.
local function history_of(owner)
  local kind = sub(owner, 1, 2)
  if kind == 'u:' then return histories.of(owner, limits.user_ttl) end
  if kind == 's:' then return histories.of(owner, limits.session_ttl) end
  return without_events({count = 0})
end

local function is_before(one, other)
  if one[SERVED_MS] ~= other[SERVED_MS] then return one[SERVED_MS] < other[SERVED_MS] end
  return one[LIST_ID] < other[LIST_ID]
end

local function insert_list(record, list)
  local lists = record.lists
  local at = #lists + 1
  while at > 1 and is_before(list, lists[at - 1]) do at = at - 1 end
  table.insert(lists, at, list)
  trim_front(lists, SHOWN_LISTS)
  record.changed = true
end

-- What was taken -----------------------------------------------------------------------------------

local purchase_codes = {}

-- Whether an event type's code is of purchases. A type may be new in this very step, so codes that
-- are not known yet are looked up again.
local function is_purchase_code(code)
  if purchase_codes[code] == nil then
    local types, stored = {}, call('HGETALL', prefix .. 'types')
    for _, name in ipairs(limits.purchase_types) do types[name] = true end
    purchase_codes[code] = false
    for at = 1, #stored, 2 do
      local plain, is_purchase = tonumber(stored[at + 1]), types[string.lower(stored[at])] == true
      purchase_codes[plain] = is_purchase
      if IMPORTED - plain > #stored / 2 then purchase_codes[IMPORTED - plain] = is_purchase end
    end
  end
  return purchase_codes[code]
end

-- Place among lists, oldest first, of the one that an event of a time counts for; nil for none.
local function place_for(shown, time, id)
  for place = #shown, 1, -1 do
    local list = shown[place].list
    local served_s = floor(list[SERVED_MS] / 1000)
    local is_meant = id == '' and served_s <= time or list[LIST_ID] == id
    if is_meant and time <= served_s + window then return place end
  end
end

local function add_taken(taken, list, time, is_purchase, value)
  local at = is_purchase and 3 or 2
  taken[at], taken[4] = 1, taken[4] + value
  if time <= list[DEADLINE] then
    taken[at + IN_TIME], taken[4 + IN_TIME] = 1, taken[4 + IN_TIME] + value
  end
end

local function outcome_at(list, position)
  for place, taken in ipairs(list[TAKEN]) do
    if taken[1] == position then return taken, place end
  end
  return {position, 0, 0, 0, 0, 0, 0}
end

-- Replaces an outcome, and counts the difference.
local function set_outcome(list, position, new)
  local old, place = outcome_at(list, position)
  local is_same = true
  for at = FIRST_MEASURE, LAST_MEASURE + IN_TIME do is_same = is_same and old[at] == new[at] end
  if is_same then return false end
  list[TAKEN][place or #list[TAKEN] + 1] = new
  for at = FIRST_MEASURE, LAST_MEASURE do add_counts(list, position, at + 1, new[at] - old[at]) end
  if list[DEADLINE] > 0 then
    exposures.add(list[UNIT], list[EXPERIMENT], new[5] - old[5], new[6] - old[6], new[7] - old[7])
  end
  return true
end

-- A name as the text of a list has it.
local function shown_name(name)
  return '=' .. (string.gsub(name, ',', '\31'))
end

local names = {}

local function position_of(list, item)
  local shown = list[SHOWN]
  local at = find(shown, ',' .. item .. ',', 1, true)
  if not at and find(shown, ',=', 1, true) then
    names[item] = names[item] or shown_name(call('HGET', prefix .. 'ids', item) or '')
    at = find(shown, ',' .. names[item] .. ',', 1, true)
  end
  if not at then return nil end
  local _, position = string.gsub(sub(list[SHOWN], 1, at), ',', '')
  return position
end

-- Finds anew what an item's events are outcomes of.
local function recount(record, history, item)
  local shown = {}
  for _, list in ipairs(record.lists) do
    local position = position_of(list, item)
    if position then
      shown[#shown + 1] = {list = list, position = position, taken = {position, 0, 0, 0, 0, 0, 0}}
    end
  end
  if #shown == 0 then return end
  local k = find_item(history, item, 1)
  while k do
    local time, named = times_of(history)[k], record.by_hash[hash_at(history, k)]
    local place = place_for(shown, time, named and named[2] or '')
    if place then
      local one = shown[place]
      add_taken(one.taken, one.list, time, is_purchase_code(type_at(history, k)), named and named[3] or 0)
    end
    k = find_item(history, item, k + 1)
  end
  for _, event in ipairs(record.foreign) do
    local is_meant = event[2] == item and not record.by_hash[event[6]]
    local place = is_meant and place_for(shown, event[3], event[1])
    if place then add_taken(shown[place].taken, shown[place].list, event[3], event[4], event[5]) end
  end
  local oldest = history.count > history.n and times_of(history)[1] or 0
  for _, one in ipairs(shown) do
    if floor(one.list[SERVED_MS] / 1000) < oldest then
      -- Events that the history no longer has may have counted.
      local before = outcome_at(one.list, one.position)
      for at = FIRST_MEASURE, LAST_MEASURE + IN_TIME do one.taken[at] = max(one.taken[at], before[at]) end
    end
    if set_outcome(one.list, one.position, one.taken) then record.changed = true end
  end
end

-- Finds anew what all events of an owner are outcomes of, from a time in seconds on.
local function recount_all(record, history, since)
  local seen = {}
  local times = times_of(history)
  for k = history.n, 1, -1 do
    if times[k] < since then break end
    local item = item_at(history, k)
    if item ~= 0 and effect_at(history, k) == 0 then seen[item] = true end
  end
  for _, one in ipairs(record.named) do seen[one[4]] = true end
  for _, one in ipairs(record.foreign) do seen[one[2]] = true end
  for item in pairs(seen) do recount(record, history, item) end
end

local function add_foreign(record, id, event)
  record.foreign[#record.foreign + 1] = {id, event[2], event[3], event[4], event[5], event[1]}
  trim_front(record.foreign, NAMED_EVENTS)
  record.changed = true
end

local function has_list(record, id)
  for _, list in ipairs(record.lists) do
    if list[LIST_ID] == id then return true end
  end
  return false
end

-- Notes an event that is in its owner's history by now.
local function take(history, item, time, event)
  local id, value = event[RECOMMENDATION_ID], event[VALUE]
  local record = record_of(history.owner)
  if id ~= '' or value ~= 0 then
    local named = {event[HASH], id, value, item}
    record.named[#record.named + 1], record.by_hash[event[HASH]] = named, named
    trim_front(record.named, NAMED_EVENTS)
    record.changed = true
  end
  if id == '' or has_list(record, id) then
    recount(record, history, item)
    return
  end
  local owner = followed.owner_of(id)
  local noted = {event[HASH], item, time, event[IS_PURCHASE], value}
  if not owner then
    followed.await(id, noted)
  elseif owner ~= history.owner then
    local other = record_of(owner)
    add_foreign(other, id, noted)
    recount(other, history_of(owner), item)
  end
end

-- The value of an owner's event in thousandths, of those that are kept; 0 without one.
local function value_of(history, hash)
  local named = is_on and record_of(history.owner).by_hash[hash]
  return named and named[3] or 0
end

local function without_hash(list, at, hash)
  local kept = {}
  for _, one in ipairs(list) do
    if one[at] ~= hash then kept[#kept + 1] = one end
  end
  return kept
end

-- Counts an event no more that has left its owner's history.
local function untake(history, item, hash)
  local record = record_of(history.owner)
  local named = record.by_hash[hash]
  if named then
    record.named, record.by_hash[hash], record.changed = without_hash(record.named, 1, hash), nil, true
  end
  recount(record, history, item)
  local id = named and named[2] or ''
  if id == '' or has_list(record, id) then return end
  local owner = followed.owner_of(id)
  if not owner then
    followed.forget_awaited(id, hash)
    return
  end
  local other = record_of(owner)
  other.foreign, other.changed = without_hash(other.foreign, 6, hash), true
  recount(other, history_of(owner), item)
end

-- A session's lists and events become a user's, whose history they are part of by now.
local function join(session, history)
  local from, into = record_of('s:' .. session), record_of(history.owner)
  if is_empty(from) then
    -- The session's events may be outcomes of lists that the user was shown.
    local oldest = into.lists[1]
    if oldest then recount_all(into, history, floor(oldest[SERVED_MS] / 1000)) end
    return
  end
  for _, list in ipairs(from.lists) do
    insert_list(into, list)
    followed.put(list[LIST_ID], history.owner)
  end
  for _, one in ipairs(from.named) do
    into.named[#into.named + 1], into.by_hash[one[1]] = one, one
  end
  for _, one in ipairs(from.foreign) do into.foreign[#into.foreign + 1] = one end
  trim_front(into.named, NAMED_EVENTS)
  trim_front(into.foreign, NAMED_EVENTS)
  records[from.owner] = {
    lists = {}, named = {}, foreign = {}, by_hash = {}, owner = from.owner, changed = true,
  }
  recount_all(into, history, 0)
end

-- Forgets what was served to an owner up to a time; counts hold nothing personal and stay.
local function erase(owner, until_ms)
  if not is_on then return end
  local record, kept = record_of(owner), {}
  for _, list in ipairs(record.lists) do
    if list[SERVED_MS] > until_ms then kept[#kept + 1] = list else followed.forget(list[LIST_ID]) end
  end
  record.changed = record.changed or not is_empty(record)
  record.lists, record.named, record.foreign, record.by_hash = kept, {}, {}, {}
  exposures.erase(owner)
end

-- Counts a list that was served to an owner, "" for nobody: a `StoredList`.
local function serve(served, owner)
  local id = served[LIST_NAME]
  if followed.owner_of(id) then
    counts.repeated = counts.repeated + 1
    return
  end
  if followed.is_full() then
    counts.unfollowed = counts.unfollowed + 1
    return
  end
  local indexes, item_ids = {}, served[ITEM_IDS]
  for n, index in ipairs(#item_ids > 0 and call('HMGET', prefix .. 'items', unpack(item_ids)) or {}) do
    indexes[n] = index or shown_name(item_ids[n])
  end
  local list = {
    id, served[TIME_MS], served[STORED_DIMENSIONS], served[SOURCE_CODES],
    ',' .. table.concat(indexes, ',') .. ',', {}, served[EXPERIMENT_NAME], served[ARM_NAME], '', 0,
  }
  if owner == '' then
    owner = 'r:' .. id
  elseif list[EXPERIMENT] ~= '' then
    -- As it was asked for: a link from the session to a user may come before or after.
    list[UNIT] = served[USER_ID] ~= '' and 'u:' .. served[USER_ID] or 's:' .. served[SESSION_ID]
    local name, served_s = list[EXPERIMENT], floor(list[SERVED_MS] / 1000)
    list[DEADLINE] = exposures.expose(list[UNIT], served_s, name, list[ARM], served[HORIZON_S], served[BUCKET_S])
  end
  followed.add(id, owner)
  counts.lists = counts.lists + 1
  add_counts(list, nil, 1, 1)
  for position = 1, #indexes do add_counts(list, position, 2, 1) end
  local record, history = record_of(owner), history_of(owner)
  insert_list(record, list)
  for _, event in ipairs(followed.take_awaited(id)) do
    if not record.by_hash[event[1]] then add_foreign(record, id, event) end
  end
  recount_all(record, history, floor(list[SERVED_MS] / 1000))
end

local function write()
  write_records()
  write_if_opened(outcome_sums)
  write_if_opened(exposures)
end

return {
  is_on = is_on, take = take, untake = untake, value_of = value_of,
  recount = function(history, item) recount(record_of(history.owner), history, item) end, join = join, erase = erase, serve = serve, write = write,
  counts = counts,
}
