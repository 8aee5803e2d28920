-- Bounded lists of records of one size, each of another item, in no order: an item's neighbours, or a
-- context's items. Only records that a step changes are decoded; the others stay in the stored string.
--
-- A list is {key, blob (as stored), used (slots), stored (slots in the blob), decoded (records by
-- item), at (decoded records by slot)}. A decoded record has the item's index first. What differs
-- between kinds of lists stands in a spec:
--
--   format, bytes        of a record; the slot behind its fields says whether it has changed
--   capacity             records of a full list
--   stride               slots between the records of a sample; see `weakest_slot`
--   strength             field by which records are compared
--   strength_format, strength_at   of this field in a stored record, from 0
--   new                  function that gives the decoded record of an item that was not in the list

-- Records of a full list that are compared when one has to make room: enough that a strong one hardly
-- ever goes, few enough that nothing is sorted.
local EVICTION_SAMPLE = 8

local function open_list(key, blob, used)
  return {key = key, blob = blob, used = used, stored = used, decoded = {}, at = {}}
end

-- Slot of the weakest record of a sample. Which ones those are depends on the data alone, so that a
-- replay evicts the same.
local function weakest_slot(list, spec, item, age)
  local at, blob, capacity = list.at, list.blob, spec.capacity
  local from, weakest, least = (item * HASH_FACTOR + age) % capacity, nil, nil
  for step = 0, EVICTION_SAMPLE - 1 do
    local slot = (from + step * spec.stride) % capacity
    local record = at[slot]
    local strength = record and record[spec.strength]
      or unpack_(spec.strength_format, blob, slot * spec.bytes + spec.strength_at + 1)
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
  local at = list.stored > 0 and locate(list.blob, pack('<I', item), spec.bytes, 0)
  local slot = at and (at - 1) / spec.bytes
  if slot and not list.at[slot] then
    record = {unpack_(spec.format, list.blob, at)}
    record[#record] = false -- not changed; `unpack_` gave the next position here
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

local function packed(record, spec)
  return pack(spec.format, unpack(record, 1, #record - 1))
end

-- Records that have no slot in the stored string yet, one after the other.
local function added_records(list, spec)
  local added = {}
  for slot = list.stored, list.used - 1 do added[#added + 1] = packed(list.at[slot], spec) end
  return table.concat(added)
end

-- Writes the changed records of the stored string, which starts `head` bytes into its key.
local function write_changed(list, spec, head)
  for slot, record in pairs(list.at) do
    if slot < list.stored and record[#record] then
      call('SETRANGE', list.key, head + slot * spec.bytes, packed(record, spec))
    end
  end
end
