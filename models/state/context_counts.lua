-- What is counted under the circumstances of a group's events: the values of contextual columns.
-- The body of a function that apply_group.lua calls, once a step for a group whose events have any.
--
-- Takes the group's prefix, the request of apply_batch.lua, and two functions of apply_group.lua. Columns are
-- those of the group's Interactions schema: what other properties say leaves nothing behind.
-- Nothing is written before `write`. Layouts: models/state/layout.py.

local prefix, request, add, locate = ...
local limits, rate, EPOCH = request.limits, request.rates[9], request.epoch
local call, sub = redis.call, string.sub
local pack, unpack_ = struct.pack, struct.unpack
local max = math.max
local NONE = -1e30

local TOTAL, COUNT = 8, 12
local STRIDE = math.floor(limits.counted / 8)

local columns = call('SMEMBERS', prefix .. 'columns')

-- Lists of counts, written back at the end of the call -------------------------------------------

local lists, dropped = {}, {}

local function list_of(name)
  local list = lists[name]
  if list then return list end
  local key = prefix .. 'circumstance:' .. name
  local blob = not dropped[name] and call('GET', key) or ''
  local used = #blob > 0 and (#blob - TOTAL) / COUNT or 0
  list = {key = key, blob = sub(blob, TOTAL + 1), used = used, stored = used, records = {}, at = {}}
  list.total = #blob > 0 and unpack_('<d', blob) or NONE
  lists[name] = list
  return list
end

-- A record in hand: item, logarithm, slot. All in hand have changed.

-- The slot of the weakest of eight records far apart: those that came first lie together, and are
-- often the strongest. Which ones depends on the data alone, so that a replay evicts the same.
local function evicted_slot(list, item, age)
  local at, from, weakest, least = list.at, (item * 40503 + age) % limits.counted, nil, nil
  for step = 0, 7 do
    local slot = (from + step * STRIDE) % limits.counted
    local record = at[slot]
    local log2 = record and record[2] or unpack_('<d', list.blob, slot * COUNT + 5)
    if not least or log2 < least then weakest, least = slot, log2 end
  end
  if at[weakest] then list.records[at[weakest][1]] = nil end
  return weakest
end

local function record_of(list, item, age)
  local record = list.records[item]
  if record then return record end
  local at = list.stored > 0 and locate(list.blob, pack('<I', item), COUNT, 0)
  local slot = at and (at - 1) / COUNT
  if slot and not list.at[slot] then
    record = {item, unpack_('<d', list.blob, at + 4), slot}
  else
    if list.used < limits.counted then
      slot = list.used
      list.used = slot + 1
    else
      slot = evicted_slot(list, item, age)
    end
    record = {item, NONE, slot}
  end
  list.at[slot], list.records[item] = record, record
  return record
end

local function count_in(name, item, age, log2)
  local list = list_of(name)
  local record = record_of(list, item, age)
  record[2], list.total = add(record[2], log2), add(list.total, log2)
end

local function packed(record)
  return pack('<Id', record[1], record[2])
end

local function write_list(list)
  local added = {}
  for slot = list.stored, list.used - 1 do added[#added + 1] = packed(list.at[slot]) end
  call('SETRANGE', list.key, 0, pack('<d', list.total))
  if #added > 0 then
    call('SETRANGE', list.key, TOTAL + list.stored * COUNT, table.concat(added))
  end
  for slot, record in pairs(list.at) do
    if slot < list.stored then call('SETRANGE', list.key, TOTAL + slot * COUNT, packed(record)) end
  end
end

-- Values that are counted, written back at the end of the call ------------------------------------

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

-- Equals by name: the order of a table is not the same on every server.
local function longest_unseen(last)
  local found
  for value, time in pairs(last) do
    if not found or time < last[found] or (time == last[found] and value < found) then found = value end
  end
  return found
end

-- Whether the value is counted apart. One beyond the limit is where another has not been seen for a
-- half-life, by the time of events: a replay decides the same.
local function is_counted(column, value, time)
  local known = values_of(column)
  local last = known.last
  if not last[value] then
    if known.n >= limits.values then
      local unseen = longest_unseen(last)
      if (time - last[unseen]) * rate < 1 then return false end
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

-- Events -------------------------------------------------------------------------------------

-- The item under each circumstance, and under its column whatever the value: one by the other is
-- how much more often than usual.
local function count(item, time, weight, said)
  local age = time - EPOCH
  local log2 = weight + age * rate
  for _, column in ipairs(columns) do
    if said[column] then
      count_in(column, item, age, log2)
      for _, value in ipairs(said[column]) do
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
