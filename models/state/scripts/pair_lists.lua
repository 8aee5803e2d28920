-- Co-visitation: each item's list of neighbours, written back by `write`.
--
-- Takes the group's prefix, "{group}:". Returns count(item, window, weight, age, hash) and write().
--
-- A count is an integer, the logarithm of its forward-decayed sum in steps; stored is its difference
-- to the list's base. It moves up in whole steps, by chance as often as is right on average: many small
-- events add up to what they are (Morris 1978, "Counting large numbers of events in small registers").
-- The chances depend on the data only, and so a replay counts the same, in batches of any size.

local prefix = ...

local ITEM, BOTH, MONTH, DAY, AFTER, NEXT, CHANGED = 1, 2, 3, 4, 5, 6, 7
local EMPTY_PAIR = rep('\0', PAIR_BYTES)
-- Steps a second by which what is new outweighs what was.
local BOTH_SPEED, MONTH_SPEED, DAY_SPEED = BOTH_RATE / BOTH_STEP, MONTH_RATE / MONTH_STEP, DAY_RATE / DAY_STEP
local BOTH_PER_LN, MONTH_PER_LN, DAY_PER_LN = 1 / LN2 / BOTH_STEP, 1 / LN2 / MONTH_STEP, 1 / LN2 / DAY_STEP

-- Of each count, by its field: number of codes, and its code at a new base.
local CODES = {[BOTH] = BOTH_CODES, [MONTH] = MONTH_CODES, [DAY] = DAY_CODES}
local FIRST = {}
for field, codes in pairs(CODES) do FIRST[field] = floor(codes * FIRST_CODE) end

-- A record's code of a count. One that is weaker than its list's base has room for is the weakest there;
-- in `day` it is none.
local function code_of(list, field, count)
  if count > list[field] then return count - list[field] end
  return field == DAY and 0 or 1
end

-- What the codes in a stored record's numbers are multiplied by.
local DAY_PLACE, BOTH_PLACE = 2 ^ 24, SHARE_CODES * SHARE_CODES
local MONTH_PLACE = BOTH_CODES * BOTH_PLACE

local function unpack_pair(list, at)
  local item_day, others = unpack_('<II', list.blob, at)
  local item, base = item_day % DAY_PLACE, list.stored_base
  local next_share, counts = others % SHARE_CODES, floor(others / BOTH_PLACE)
  local day, both = (item_day - item) / DAY_PLACE, counts % BOTH_CODES
  return {
    item, both + base[BOTH], (counts - both) / BOTH_CODES + base[MONTH], day > 0 and day + base[DAY] or NONE,
    (others % BOTH_PLACE - next_share) / SHARE_CODES, next_share, false,
  }
end

local function pack_pair(list, record)
  return pack('<II', record[ITEM] + code_of(list, DAY, record[DAY]) * DAY_PLACE,
    code_of(list, MONTH, record[MONTH]) * MONTH_PLACE + code_of(list, BOTH, record[BOTH]) * BOTH_PLACE
      + record[AFTER] * SHARE_CODES + record[NEXT])
end

local stored_items = {}

-- The beginning of an item's stored record.
local function stored_item(item)
  local stored = stored_items[item]
  if not stored then
    stored = sub(pack('<I', item), 1, 3)
    stored_items[item] = stored
  end
  return stored
end

local SPEC = {
  bytes = PAIR_BYTES, head = PAIR_HEAD_BYTES, capacity = limits.neighbours, stride = 1,
  item = stored_item,
  strength = function(list, record) return max(record[MONTH], list[MONTH] + 1) end,
  strength_at = function(list, at)
    local others = unpack_('<I', list.blob, at + PAIR_OTHERS_AT)
    local month = floor(others / MONTH_PLACE) + list.stored_base[MONTH]
    return month > list[MONTH] and month or list[MONTH] + 1
  end,
  new = function(item) return {item, NONE, NONE, NONE, 0, 0, false} end,
  unpack = unpack_pair, pack = pack_pair,
}

local lists, touched = {}, {}

local function list_of(item)
  local list = lists[item]
  if list then return list end
  local key = prefix .. 'pairs:' .. item
  local blob = call('GET', key) or ''
  local used = max(0, (#blob - PAIR_HEAD_BYTES) / PAIR_BYTES)
  local at = #blob - PAIR_BYTES + 1
  while used > 0 and unpack_('<I', blob, at) == 0 do
    used, at = used - 1, at - PAIR_BYTES
  end
  list = open_list(key, blob, used)
  if used > 0 then
    list[BOTH], list[MONTH], list[DAY] = unpack_('<iii', blob)
    list.stored_base = {[BOTH] = list[BOTH], [MONTH] = list[MONTH], [DAY] = list[DAY]}
  end
  lists[item] = list
  touched[#touched + 1] = item
  return list
end

-- Chances from 0 to 1, one after the other: a linear congruential generator with a period of 65536.
-- Where it is needed most often it is written out: a call costs as much as all else there.
local chance = 0

-- A count in a list's range after `mass` came, at `now` in its steps; and its sum, decayed, before.
-- `log2` is the logarithm of the mass, `per_ln` steps of a natural logarithm of 1.
local function grown(count, base, mass, log2, now, step, per_ln)
  chance = (chance * 25173 + 13849) % 65536
  if count == NONE then
    count = log2 / step + now + chance / 65536
    return count - count % 1, 0
  end
  if count <= base then count = base + 1 end
  local before = 2 ^ ((count - now) * step)
  count = log(before + mass) * per_ln + now + chance / 65536
  return count - count % 1, before
end

-- Gives the list a new base where its range ends below a count.
local function fit_base(list, field, count)
  if not list[field] or count - list[field] >= CODES[field] then list[field] = count - FIRST[field] end
end

-- Counts `neighbour` in the list of an item: with `weight` in `after` if it came after that item, in
-- `before` otherwise. Both directions together count the latter at half.
local function count_pair(list, neighbour, weight, log2, age, is_after, is_next)
  local record = record_of(list, SPEC, neighbour, age)
  local mass = weight
  if not is_after then mass, log2 = weight / 2, log2 - 1 end
  local both, sum =
    grown(record[BOTH], list[BOTH], mass, log2, age * BOTH_SPEED, BOTH_STEP, BOTH_PER_LN)
  local month = grown(record[MONTH], list[MONTH], mass, log2, age * MONTH_SPEED, MONTH_STEP, MONTH_PER_LN)
  local day = record[DAY]
  if day ~= NONE and day <= list[DAY] then day = NONE end
  day = grown(day, list[DAY], mass, log2, age * DAY_SPEED, DAY_STEP, DAY_PER_LN)
  record[BOTH], record[MONTH], record[DAY], record[CHANGED] = both, month, day, true
  fit_base(list, BOTH, both)
  fit_base(list, MONTH, month)
  fit_base(list, DAY, day)
  local after = sum * record[AFTER] / (SHARE_CODES - 1)
  local next_sum = after * record[NEXT] / (SHARE_CODES - 1)
  if is_after then after = after + weight end
  if is_next then next_sum = next_sum + weight end
  chance = (chance * 25173 + 13849) % 65536
  local share = after / (sum + mass) * (SHARE_CODES - 1) + chance / 65536
  record[AFTER] = share - share % 1
  if after > 0 then
    share = next_sum / after * (SHARE_CODES - 1) + chance * 25173 % 65536 / 65536
    record[NEXT] = share - share % 1
  end
end

-- A count after `mass` was taken back, and the sum that was before; none where no more is left than
-- rounding leaves.
local function shrunk(count, base, mass, now, step, per_ln)
  chance = (chance * 25173 + 13849) % 65536
  if count == NONE or count <= base then return count, 0 end
  local before = 2 ^ ((count - now) * step)
  local left = before - mass
  if left <= before * (2 ^ step - 1) then return NONE, before end
  count = log(left) * per_ln + now + chance / 65536
  return count - count % 1, before
end

-- Takes back what `count_pair` counted, as exactly as counts are: a pair with nothing else goes.
local function take_back_pair(list, neighbour, weight, age, is_after, is_next)
  local record = known_record(list, SPEC, neighbour)
  if not record then return end
  local mass = is_after and weight or weight / 2
  local both, sum = shrunk(record[BOTH], list[BOTH], mass, age * BOTH_SPEED, BOTH_STEP, BOTH_PER_LN)
  if both == NONE then
    remove_record(list, SPEC, neighbour)
    return
  end
  local month = shrunk(record[MONTH], list[MONTH], mass, age * MONTH_SPEED, MONTH_STEP, MONTH_PER_LN)
  record[DAY] = shrunk(record[DAY], list[DAY], mass, age * DAY_SPEED, DAY_STEP, DAY_PER_LN)
  record[BOTH], record[MONTH], record[CHANGED] = both, month == NONE and list[MONTH] + 1 or month, true
  if sum == 0 then return end
  local after = sum * record[AFTER] / (SHARE_CODES - 1)
  local next_sum = after * record[NEXT] / (SHARE_CODES - 1)
  if is_after then after = max(after - weight, 0) end
  if is_next then next_sum = max(next_sum - weight, 0) end
  chance = (chance * 25173 + 13849) % 65536
  local share = min(after / (sum - mass), 1) * (SHARE_CODES - 1) + chance / 65536
  record[AFTER] = share - share % 1
  if after > 0 then
    share = min(next_sum / after, 1) * (SHARE_CODES - 1) + chance * 25173 % 65536 / 65536
    record[NEXT] = share - share % 1
  end
end

-- One item of a window at a distance, as `count` counts it; `take_back` is its inverse.
local function add(item, other, distance, weight, age, hash)
  chance = (hash + item * HASH_FACTOR + distance) % 65536
  local log2 = weight + FADES_LOG2[distance]
  count_pair(list_of(other), item, 2 ^ log2, log2, age, true, distance == 1)
  count_pair(list_of(item), other, 2 ^ log2, log2, age, false, false)
end

local function take_back(item, other, distance, weight, age, hash)
  chance = (hash + item * HASH_FACTOR + distance) % 65536
  local faded = 2 ^ (weight + FADES_LOG2[distance])
  take_back_pair(list_of(other), item, faded, age, true, distance == 1)
  take_back_pair(list_of(item), other, faded, age, false, false)
end

-- Counts an event on an item with each item of the window before it, nearest first. `weight` is a
-- logarithm, `age` the event's time in seconds since EPOCH, `hash` that of its id.
local function count(item, window, weight, age, hash)
  local own = list_of(item)
  chance = (hash + item * HASH_FACTOR) % 65536
  for distance, other in ipairs(window) do
    local log2 = weight + FADES_LOG2[distance]
    local faded = 2 ^ log2
    count_pair(list_of(other), item, faded, log2, age, true, distance == 1)
    count_pair(own, other, faded, log2, age, false, false)
  end
end

-- What `add` and `take_back` do, where the lists of both items are on two shards: to the item's own
-- list, and to that of the other one. Each draws chances of its own.
local function count_before(item, distance, other, weight, age, hash)
  chance = (hash + item * HASH_FACTOR + distance) % 65536
  local log2 = weight + FADES_LOG2[distance]
  count_pair(list_of(item), other, 2 ^ log2, log2, age, false, false)
end

local function count_after(other, distance, item, weight, age, hash)
  local log2 = weight + FADES_LOG2[distance]
  chance = (hash + other * HASH_FACTOR + distance) % 65536
  count_pair(list_of(other), item, 2 ^ log2, log2, age, true, distance == 1)
end

local function take_back_before(item, distance, other, weight, age, hash)
  chance = (hash + item * HASH_FACTOR + distance) % 65536
  take_back_pair(list_of(item), other, 2 ^ (weight + FADES_LOG2[distance]), age, false, false)
end

local function take_back_after(other, distance, item, weight, age, hash)
  chance = (hash + other * HASH_FACTOR + distance) % 65536
  take_back_pair(list_of(other), item, 2 ^ (weight + FADES_LOG2[distance]), age, true, distance == 1)
end

local function head_of(list)
  return pack('<iii', list[BOTH], list[MONTH], list[DAY])
end

-- Stored records of a list whose base is another now.
local function moved_records(list)
  local moved = {}
  for slot = 0, list.stored - 1 do
    local record = list.at[slot] or unpack_pair(list, PAIR_HEAD_BYTES + slot * PAIR_BYTES + 1)
    moved[#moved + 1] = pack_pair(list, record)
  end
  return table.concat(moved)
end

local function has_moved(list)
  local stored = list.stored_base
  return not stored or stored[BOTH] ~= list[BOTH] or stored[MONTH] ~= list[MONTH] or stored[DAY] ~= list[DAY]
end

-- A list that outgrows its string gets twice the room, but no more than SPARE_PAIRS free slots.
local function write_list(list)
  if list.used == 0 then
    if list.has_shrunk then call('DEL', list.key) end
    return
  end
  local stored, room = list.stored, max(0, (#list.blob - PAIR_HEAD_BYTES) / PAIR_BYTES)
  local added, moved = added_records(list, SPEC), list.has_shrunk or has_moved(list)
  if list.used > room or moved then
    if list.used > room then
      room = max(list.used, min(limits.neighbours, 2 * room, list.used + SPARE_PAIRS))
    end
    local kept = moved and moved_records(list) or sub(list.blob, PAIR_HEAD_BYTES + 1, PAIR_HEAD_BYTES + stored * PAIR_BYTES)
    local padding = rep(EMPTY_PAIR, room - list.used)
    call('SET', list.key, head_of(list) .. kept .. added .. padding)
    if moved then return end
  elseif #added > 0 then
    call('SETRANGE', list.key, PAIR_HEAD_BYTES + stored * PAIR_BYTES, added)
  end
  write_changed(list, SPEC)
end

-- Readers that cache lists are told which ones changed (channels.py). A server that does not permit
-- it must not end the step in the middle: its readers cannot be told either, and know that.
local function write()
  for _, item in ipairs(touched) do write_list(lists[item]) end
  if #touched > 0 then
    redis.pcall('PUBLISH', prefix .. 'changed', table.concat(touched, ' '))
  end
end

return {
  count = count, count_before = count_before, count_after = count_after,
  take_back_before = take_back_before, take_back_after = take_back_after,
  add = add, take_back = take_back, write = write,
}
