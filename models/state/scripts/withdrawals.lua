-- Takes back what events have counted for: those that are undone by their ids, and carts and purchases
-- of which a later event of their owner says that they came to nothing.
--
-- Takes the group's prefix, "{group}:", its histories, items, pair lists and outcomes, and the step's
-- counts. Opened by the first event that takes something back: others cost nothing.
--
-- What a history has counted for is a function of its live entries in their order: an entry that is
-- withdrawn stays, with its id, as one that no longer counts, and all that would have been counted
-- otherwise without it, of its own window and of those of the entries behind it, is counted so.

local prefix, histories, items, pair_lists, outcomes, counts = ...

local names

local function name_of(code)
  if not (names and names[code]) then
    names = {}
    local stored = call('HGETALL', prefix .. 'types')
    for at = 1, #stored, 2 do
      local name, plain = string.lower(stored[at]), tonumber(stored[at + 1])
      names[plain] = name
      names[IMPORTED - plain] = names[IMPORTED - plain] or name
    end
    names[code] = names[code] or ''
  end
  return names[code]
end

-- Logarithm of the weight that an entry has counted with; `types` as in models/state/event_types.py.
local function log2_weight(history, code, hash, types)
  local name = name_of(code)
  local weight, scale = types.weights[name] or 0, types.value_scales[name]
  local value = scale and outcomes.value_of(history, hash) or 0
  if value ~= 0 then
    weight = weight + log(min(max(value / 1000 / scale, LEAST_FACTOR), MOST_FACTOR)) / LN2
  end
  return weight
end

-- What the live events from the k-th on, as far as its window reaches, count in pair lists:
-- distances by other item, by the events' places.
local function windows_from(history, k)
  local found = {}
  for from = k, min(history.n, k + 3 * limits.window) do
    local item = item_at(history, from)
    local distances = {}
    if item ~= 0 and effect_at(history, from) == 0 and histories.item_before(history, from) ~= item then
      for distance, other in ipairs(histories.window_before(history, from, item)) do
        distances[other] = distance
      end
    end
    found[from] = distances
  end
  return found
end

-- Items of both tables, in one order on every server.
local function others_of(one, other)
  local found = {}
  for item in pairs(one) do found[#found + 1] = item end
  for item in pairs(other) do if not one[item] then found[#found + 1] = item end end
  table.sort(found)
  return found
end

local function recount_pairs(history, k, before, after, item, types)
  local times = times_of(history)
  for from = k, history.n do
    local old, new = before[from], after[from]
    if not old then break end
    local time, code, hash = times[from], type_at(history, from), hash_at(history, from)
    local own = from == k and item or item_at(history, from)
    for _, other in ipairs(others_of(old, new)) do
      if old[other] ~= new[other] then
        local weight = log2_weight(history, code, hash, types)
        if old[other] then pair_lists.take_back(own, other, old[other], weight, time - EPOCH, hash) end
        if new[other] then pair_lists.add(own, other, new[other], weight, time - EPOCH, hash) end
      end
    end
  end
end

-- Gives the k-th event another effect: withdraws a live one, or restores it with effect 0.
local function set_effect(history, k, effect, item, types)
  local time, code, hash = times_of(history)[k], type_at(history, k), hash_at(history, k)
  local was_live, is_live = effect_at(history, k) == 0, effect == 0
  local before = was_live ~= is_live and windows_from(history, k)
  if is_live and not histories.has_item(history, item) then histories.remember_owner(item, history.number) end
  set_event(history, k, effect, effect == UNDONE and 0 or item)
  if was_live == is_live then return end
  local is_purchase = types.purchases[name_of(code)] and 1 or 0
  local sign = is_live and 1 or -1
  counts.undone = counts.undone - sign
  counts.undone_purchases = counts.undone_purchases - sign * is_purchase
  if item == 0 then return end
  recount_pairs(history, k, before, windows_from(history, k), item, types)
  local weight = log2_weight(history, code, hash, types)
  if is_live then
    items.count(item, time, weight, is_purchase == 1)
  else
    items.take_back(item, time, weight, is_purchase == 1)
    if not histories.has_item(history, item) then histories.forget_owner(item, history.number) end
  end
end

-- Matches an item's carts and purchases with the later events that take them back: each of these takes
-- the last one before it that is not taken yet. Undoing one in whatever order ends in the same.
local function settle(history, item, types)
  local open = {[TAKES_BACK_CART] = {}, [TAKES_BACK_PURCHASE] = {}}
  local taken, all = {}, {}
  for k = 1, history.n do
    local effect, own, code = effect_at(history, k), item_at(history, k), type_at(history, k)
    if own == item and open[effect] then
      local last = table.remove(open[effect])
      if last then taken[last] = true end
    elseif own == item and (effect == 0 or effect == TAKEN_BACK) then
      local name = name_of(code)
      local kind = types.purchases[name] and TAKES_BACK_PURCHASE or types.carts[name] and TAKES_BACK_CART
      if kind then
        table.insert(open[kind], k)
        all[#all + 1] = {k, effect}
      end
    end
  end
  local is_changed = false
  for _, one in ipairs(all) do
    local effect = taken[one[1]] and TAKEN_BACK or 0
    if effect ~= one[2] then
      set_effect(history, one[1], effect, item, types)
      is_changed = true
    end
  end
  if is_changed and outcomes.is_on then outcomes.recount(history, item) end
end

-- Undoes the event of this id, if the history has it; or keeps the id, so that the event will not count
-- when it comes. Returns whether anything has changed.
local function undo(history, id, time, types)
  local k = find_event(history, id)
  if not k then
    if histories.is_trimmed(history, id) then return false end
    insert_event(history, 0, UNDONE, time, 0, id)
    history.count = history.count + 1
    histories.trim(history)
    return true
  end
  local effect, item = effect_at(history, k), item_at(history, k)
  if effect == UNDONE then return false end
  set_effect(history, k, UNDONE, item, types)
  if effect ~= 0 and effect ~= TAKEN_BACK then
    counts.undone = counts.undone + 1
  end
  if item ~= 0 then
    settle(history, item, types)
    if outcomes.is_on then outcomes.untake(history, item, (unpack_('<I', id))) end
  end
  return true
end

-- Removes an entry, whatever it counts for; returns its item, 0 for none and for one that was forgotten
-- when it was undone. Unlike an undone one, the event counts when it comes again.
local function remove(history, k, types)
  local effect, item, hash = effect_at(history, k), item_at(history, k), hash_at(history, k)
  if effect ~= UNDONE then
    set_effect(history, k, UNDONE, item, types)
    if effect ~= 0 and effect ~= TAKEN_BACK then counts.undone = counts.undone + 1 end
  end
  remove_event(history, k)
  history.count = history.count - 1
  if item ~= 0 then
    settle(history, item, types)
    if outcomes.is_on then outcomes.untake(history, item, hash) end
  end
  return item
end

return {settle = settle, undo = undo, remove = remove}
