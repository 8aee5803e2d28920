-- Counts of items by the values of contextual columns, written back by `write`.
--
-- Takes the group's prefix, "{group}:". Columns are those of the group's Interactions schema: other
-- properties leave nothing behind. Returns count(item, time, weight, context) and write().

local prefix = ...

local LOG2, CHANGED = 2, 3

-- Records that came first lie together, and are often the strongest: a sample is spread over all.
local SPEC = {
  bytes = CONTEXT_COUNT_BYTES, head = CONTEXT_TOTAL_BYTES, capacity = limits.context_items,
  stride = floor(limits.context_items / EVICTION_SAMPLE),
  item = function(item) return pack('<I', item) end,
  strength = function(_, record) return record[LOG2] end,
  strength_at = function(list, at) return (unpack_('<d', list.blob, at + CONTEXT_LOG2_AT)) end,
  new = function(item) return {item, NONE, true} end,
  unpack = function(list, at)
    local item, log2 = unpack_('<Id', list.blob, at)
    return {item, log2, false}
  end,
  pack = function(_, record) return pack('<Id', record[1], record[LOG2]) end,
}

local columns = call('SMEMBERS', prefix .. 'columns')

-- Lists of counts, by "<column>" and by "<column>=<value>" -----------------------------------------

local lists, dropped = {}, {}

local function list_of(name)
  local list = lists[name]
  if list then return list end
  local key = prefix .. 'circumstance:' .. name
  local blob = not dropped[name] and call('GET', key) or ''
  local used = #blob > 0 and (#blob - CONTEXT_TOTAL_BYTES) / CONTEXT_COUNT_BYTES or 0
  list = open_list(key, blob, used)
  list.total = #blob > 0 and unpack_('<d', blob) or NONE
  lists[name] = list
  return list
end

local function count_in(name, item, age, log2)
  local list = list_of(name)
  local record = record_of(list, SPEC, item, age)
  record[LOG2], list.total = add_log2(record[LOG2], log2), add_log2(list.total, log2)
  record[CHANGED] = true
end

local function write_list(list)
  local added = added_records(list, SPEC)
  call('SETRANGE', list.key, 0, pack('<d', list.total))
  if #added > 0 then
    call('SETRANGE', list.key, CONTEXT_TOTAL_BYTES + list.stored * CONTEXT_COUNT_BYTES, added)
  end
  write_changed(list, SPEC)
end

-- Values that have counts of their own --------------------------------------------------------------

local values = {}

local function values_of(column)
  local known = values[column]
  if known then return known end
  known = {last = {}, changed = {}, n = 0}
  local raw = call('HGETALL', prefix .. 'values:' .. column)
  for at = 1, #raw, 2 do
    known.last[raw[at]] = tonumber(raw[at + 1])
    known.n = known.n + 1
  end
  values[column] = known
  return known
end

-- Ties by name: the order of a table is not the same on every server.
local function longest_unseen(last)
  local found
  for value, time in pairs(last) do
    if not found or time < last[found] or (time == last[found] and value < found) then found = value end
  end
  return found
end

-- Whether a value has counts of its own. Beyond the limit it gets them once another has not been seen
-- for a half-life, by the time of events: a replay decides the same.
local function is_counted(column, value, time)
  local known = values_of(column)
  local last = known.last
  if not last[value] then
    if known.n >= limits.context_values then
      local unseen = longest_unseen(last)
      if (time - last[unseen]) * CONTEXT_RATE < 1 then return false end
      local name = column .. '=' .. unseen
      last[unseen], known.changed[unseen] = nil, true
      lists[name], dropped[name] = nil, true
      known.n = known.n - 1
    end
    known.n = known.n + 1
  end
  last[value], known.changed[value] = max(last[value] or 0, time), true
  return true
end

local function write_values()
  for column, known in pairs(values) do
    local key = prefix .. 'values:' .. column
    for value in pairs(known.changed) do
      if known.last[value] then
        call('HSET', key, value, string.format('%.0f', known.last[value]))
      else
        call('HDEL', key, value)
      end
    end
  end
end

-- Counts an event on an item under each of its context's values, and under each column whatever the
-- value: the ratio of the two is the item's lift.
local function count(item, time, weight, context)
  local age = time - EPOCH
  local log2 = weight + age * CONTEXT_RATE
  for _, column in ipairs(columns) do
    if context[column] then
      count_in(column, item, age, log2)
      for _, value in ipairs(context[column]) do
        if is_counted(column, value, time) then
          count_in(column .. '=' .. value, item, age, log2)
        end
      end
    end
  end
end

local function write()
  for name in pairs(dropped) do call('DEL', prefix .. 'circumstance:' .. name) end
  for _, list in pairs(lists) do write_list(list) end
  write_values()
end

return {count = count, write = write}
