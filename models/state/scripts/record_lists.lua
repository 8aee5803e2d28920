-- Bounded lists of records of one size, each of another item, in no order: an item's neighbours, or a
-- context's items. Only records that a step changes are decoded; the others stay in the stored string.
--
-- A list is {key, blob (as stored), used (slots), stored (slots in the blob), decoded
-- (records by item), at (decoded records by slot)}. A decoded record has the item's index first and,
-- last, whether it has changed. What differs between kinds of lists stands in a spec:
--
--   bytes, head          of a record; of what stands before the first
--   capacity             records of a full list
--   stride               slots between the records of a sample; see `weakest_slot`
--   item                 function that gives the beginning of an item's stored record
--   strength             function that gives what a decoded record is compared by
--   strength_at          function that gives the same of the stored record at a position
--   new                  function that gives the decoded record of an item that was not in the list
--   unpack, pack         functions that decode the record at a position, and encode a decoded one

-- Records of a full list that are compared when one has to make room: enough that a strong one hardly
-- ever goes, few enough that nothing is sorted.
local EVICTION_SAMPLE = 8

local function open_list(key, blob, used)
  return {key = key, blob = blob, used = used, stored = used, decoded = {}, at = {}}
end

-- Slot of the weakest record of a sample. Which ones those are depends on the data alone, so that a
-- replay evicts the same.
local function weakest_slot(list, spec, item, age)
  local at, bytes, capacity = list.at, spec.bytes, spec.capacity
  local from, weakest, least = (item * HASH_FACTOR + age) % capacity, nil, nil
  for step = 0, EVICTION_SAMPLE - 1 do
    local slot = (from + step * spec.stride) % capacity
    local record = at[slot]
    local strength
    if record then
      strength = spec.strength(list, record)
    else
      strength = spec.strength_at(list, spec.head + slot * bytes + 1)
    end
    if not least or strength < least then weakest, least = slot, strength end
  end
  if at[weakest] then list.decoded[at[weakest][1]] = nil end
  return weakest
end

-- An item's record, decoded; a new one takes the next free slot, or that of a weak one. `age` is the
-- event's time in seconds since EPOCH.
local function record_of(list, spec, item, age)
  local record = list.decoded[item]
  if record then return record end
  local at = list.stored > 0 and locate(list.blob, spec.item(item), spec.bytes, spec.head)
  local slot = at and (at - 1) / spec.bytes
  if slot and not list.at[slot] then
    record = spec.unpack(list, spec.head + at)
  else
    if list.used < spec.capacity then
      slot = list.used
      list.used = slot + 1
    else
      slot = weakest_slot(list, spec, item, age)
    end
    record = spec.new(item)
  end
  list.at[slot] = record
  list.decoded[item] = record
  return record
end

-- An item's record, decoded, if the list has one.
local function known_record(list, spec, item)
  if list.decoded[item] then return list.decoded[item] end
  local at = list.stored > 0 and locate(list.blob, spec.item(item), spec.bytes, spec.head)
  if not at or list.at[(at - 1) / spec.bytes] then return nil end
  return record_of(list, spec, item, 0)
end

-- Removes an item's record, which is decoded: the last one takes its slot.
local function remove_record(list, spec, item)
  local slot, last = nil, list.used - 1
  for at, record in pairs(list.at) do
    if record == list.decoded[item] then slot = at end
  end
  if slot ~= last then
    local record = list.at[last] or spec.unpack(list, spec.head + last * spec.bytes + 1)
    list.at[slot], list.decoded[record[1]], record[#record] = record, record, true
  end
  list.at[last], list.decoded[item] = nil, nil
  list.used, list.has_shrunk = last, true
  if last < list.stored then
    list.stored = last
    list.blob = sub(list.blob, 1, spec.head + last * spec.bytes)
  end
end

-- Records that have no slot in the stored string yet, one after the other.
local function added_records(list, spec)
  local added = {}
  for slot = list.stored, list.used - 1 do added[#added + 1] = spec.pack(list, list.at[slot]) end
  return table.concat(added)
end

-- Writes the changed records of the stored string.
local function write_changed(list, spec)
  for slot, record in pairs(list.at) do
    if slot < list.stored and record[#record] then
      call('SETRANGE', list.key, spec.head + slot * spec.bytes, spec.pack(list, record))
    end
  end
end
