-- Co-visitation: each item's list of neighbours, written back by `write`.
--
-- Takes the group's prefix, "{group}:". Returns count(item, window, weight, age) and write().

local prefix = ...

local ITEM, NEXT, AFTER, BEFORE, DAY, MONTH, CHANGED = 1, 2, 3, 4, 5, 6, 7
local EMPTY_PAIR = rep('\0', PAIR_BYTES)

local SPEC = {
  format = '<Ifffff', bytes = PAIR_BYTES, capacity = limits.neighbours, stride = 1,
  strength = MONTH, strength_format = '<f', strength_at = PAIR_MONTH_AT,
  new = function(item) return {item, NONE, NONE, NONE, NONE, NONE, false} end,
}

local lists, touched = {}, {}

local function list_of(item)
  local list = lists[item]
  if list then return list end
  local key = prefix .. 'pairs:' .. item
  local blob = call('GET', key) or ''
  local zeros = find(blob, EMPTY_PAIR, 1, true)
  -- Zeros may begin inside the last record, never before it: an item's index is not 0.
  local used = zeros and floor((zeros + PAIR_BYTES - 2) / PAIR_BYTES) or #blob / PAIR_BYTES
  list = open_list(key, blob, used)
  lists[item] = list
  touched[#touched + 1] = item
  return list
end

-- Counts `neighbour` in the list of an item that came before it.
local function count_after(list, neighbour, weight, age, distance)
  local record = record_of(list, SPEC, neighbour, age)
  if distance == 1 then record[NEXT] = add_log2(record[NEXT], weight + age * NEXT_RATE) end
  record[AFTER] = add_log2(record[AFTER], weight + age * AFTER_RATE)
  record[DAY] = add_log2(record[DAY], weight + age * DAY_RATE)
  record[MONTH] = add_log2(record[MONTH], weight + age * MONTH_RATE)
  record[CHANGED] = true
end

-- Counts `neighbour` in the list of an item that came after it: in `day` and `month` at half.
local function count_before(list, neighbour, weight, age)
  local record = record_of(list, SPEC, neighbour, age)
  record[BEFORE] = add_log2(record[BEFORE], weight + age * BEFORE_RATE)
  record[DAY] = add_log2(record[DAY], weight - 1 + age * DAY_RATE)
  record[MONTH] = add_log2(record[MONTH], weight - 1 + age * MONTH_RATE)
  record[CHANGED] = true
end

-- Counts an event on an item with each item of the window before it, nearest first. `weight` is a
-- logarithm, `age` the event's time in seconds since EPOCH.
local function count(item, window, weight, age)
  local own = list_of(item)
  for distance, other in ipairs(window) do
    local faded = weight + FADES_LOG2[distance]
    count_after(list_of(other), item, faded, age, distance)
    count_before(own, other, faded, age)
  end
end

-- A list that outgrows its string gets twice the room, but no more than SPARE_PAIRS free slots.
local function write_list(list)
  local stored, room = list.stored, #list.blob / PAIR_BYTES
  local added = added_records(list, SPEC)
  if list.used > room then
    room = max(list.used, min(limits.neighbours, 2 * room, list.used + SPARE_PAIRS))
    local padding = rep(EMPTY_PAIR, room - list.used)
    call('SET', list.key, sub(list.blob, 1, stored * PAIR_BYTES) .. added .. padding)
  elseif #added > 0 then
    call('SETRANGE', list.key, stored * PAIR_BYTES, added)
  end
  write_changed(list, SPEC, 0)
end

-- Readers that cache lists are told which ones changed (channels.py). A server that does not permit
-- it must not end the step in the middle: its readers cannot be told either, and know that.
local function write()
  for _, item in ipairs(touched) do write_list(lists[item]) end
  if #touched > 0 then
    redis.pcall('PUBLISH', prefix .. 'changed', table.concat(touched, ' '))
  end
end

return {count = count, write = write}
