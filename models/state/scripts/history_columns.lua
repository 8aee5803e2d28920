-- Events of a history, oldest first, in columns that are each as narrow as the events allow.
--
-- Comes behind prelude.lua. A history is a table with
--
--   count, number, accepted   as in layout.HISTORY_HEAD
--   n, last                   events it has, and the time of the newest
--   hashes                    of the events' ids, HASH_BYTES each
--   items, item_bytes         indexes of items in 2 bytes each, in 3 once one needs them; 0 for none
--   types, type               codes of types, a byte each; '' as long as all have the code `type`
--   effects                   of negative events and those that no longer count, a byte each; '' without any
--   gaps                      seconds from each event to the next, in codes of 1, 2, 3 or 5 bytes
--
-- What comes often reads and appends bytes: nothing is decoded. Times are decoded, and kept in `times`,
-- where an event comes late or one is taken back.

local char, byte = string.char, string.byte

local ITEM_FORMATS = {[2] = '<I2', [3] = '<I3'}

local function gap_code(gap)
  if gap < FIRST_OF_TWO then return char(gap) end
  if gap < FIRST_OF_THREE then
    gap = gap - FIRST_OF_TWO
    return char(TWO_BYTES + floor(gap / 256), gap % 256)
  end
  if gap < FIRST_OF_FIVE then
    gap = gap - FIRST_OF_THREE
    return char(THREE_BYTES + floor(gap / 65536), floor(gap / 256) % 256, gap % 256)
  end
  return char(FIVE_BYTES) .. pack('>I', gap)
end

-- Bytes of the code that begins with a byte.
local function gap_bytes(first)
  return first < TWO_BYTES and 1 or first < THREE_BYTES and 2 or first < FIVE_BYTES and 3 or 5
end

local function without_events(history)
  history.n, history.last, history.type, history.item_bytes = 0, 0, 0, 2
  history.hashes, history.items, history.types, history.effects, history.gaps = '', '', '', '', ''
  return history
end

local function unpack_history(raw)
  local count, number, accepted, last, n, flags, type = unpack_('<IIdIHBB', raw)
  local width = flags % 2 == 1 and 3 or 2
  local items = HISTORY_HEAD_BYTES + HASH_BYTES * n
  local at = items + width * n
  local history = {
    count = count, number = number, accepted = accepted, last = last, n = n, type = type,
    item_bytes = width, hashes = sub(raw, HISTORY_HEAD_BYTES + 1, items), items = sub(raw, items + 1, at),
    types = '', effects = '',
  }
  if flags % 4 >= HAS_TYPES then history.types, at = sub(raw, at + 1, at + n), at + n end
  if flags >= HAS_EFFECTS then history.effects, at = sub(raw, at + 1, at + n), at + n end
  history.gaps = sub(raw, at + 1)
  return history
end

local function pack_history(history)
  local flags = (history.item_bytes == 3 and HAS_WIDE_ITEMS or 0) + (history.types ~= '' and HAS_TYPES or 0)
    + (history.effects ~= '' and HAS_EFFECTS or 0)
  return pack('<IIdIHBB', history.count, history.number, history.accepted, history.last, history.n, flags, history.type)
    .. history.hashes .. history.items .. history.types .. history.effects .. history.gaps
end

-- Item of the k-th event, whatever its effect.
local function item_at(history, k)
  local width = history.item_bytes
  return (unpack_(ITEM_FORMATS[width], history.items, (k - 1) * width + 1))
end

local function type_at(history, k)
  return history.types == '' and history.type or byte(history.types, k)
end

-- Effect of the k-th event; 0 of a live one.
local function effect_at(history, k)
  return history.effects == '' and 0 or byte(history.effects, k)
end

local function hash_at(history, k)
  return (unpack_('<I5', history.hashes, (k - 1) * HASH_BYTES + 1))
end

-- The event of an id, as it is packed, by its place; nil without one.
local function find_event(history, id)
  local at = locate(history.hashes, id, HASH_BYTES, 0)
  return at and (at - 1) / HASH_BYTES + 1
end

-- The first live event on an item from the k-th on; nil without one.
local function find_item(history, item, k)
  local width = history.item_bytes
  if width == 2 and item >= 65536 then return nil end
  local wanted, at = pack(ITEM_FORMATS[width], item), (k - 1) * width + 1
  while true do
    at = find(history.items, wanted, at, true)
    if not at then return nil end
    local over = (at - 1) % width
    k = (at - 1 - over) / width + 1
    if over == 0 and effect_at(history, k) == 0 then return k end
    at = k * width + 1
  end
end

-- Times of all events.
local function times_of(history)
  if history.times then return history.times end
  local gaps, at, times, since = history.gaps, 1, {}, 0
  for k = 1, history.n do
    times[k] = since
    local one, two, three = byte(gaps, at, at + 2)
    if not one then break end
    if one < TWO_BYTES then
      since, at = since + one, at + 1
    elseif one < THREE_BYTES then
      since, at = since + FIRST_OF_TWO + (one - TWO_BYTES) * 256 + two, at + 2
    elseif one < FIVE_BYTES then
      since, at = since + FIRST_OF_THREE + (one - THREE_BYTES) * 65536 + two * 256 + three, at + 3
    else
      since, at = since + unpack_('>I', gaps, at + 1), at + 5
    end
  end
  for k = 1, #times do times[k] = times[k] + history.last - since end
  history.times = times
  return times
end

-- Writes times that were changed.
local function pack_times(history, times)
  local codes = {}
  for k = 2, #times do codes[k - 1] = gap_code(times[k] - times[k - 1]) end
  history.gaps, history.last, history.times = table.concat(codes), times[#times] or 0, times
end

local function put_in(column, k, width, text)
  if (k - 1) * width == #column then return column .. text end
  return sub(column, 1, (k - 1) * width) .. text .. sub(column, (k - 1) * width + 1)
end

local function set_in(column, k, width, text)
  return sub(column, 1, (k - 1) * width) .. text .. sub(column, k * width + 1)
end

-- Gives items 3 bytes each, where this one needs them.
local function make_room_for(history, item)
  if item < 65536 or history.item_bytes == 3 then return end
  history.items = string.gsub(history.items, '..', '%0\0')
  history.item_bytes = 3
end

-- Puts an event where its time belongs, behind others of that time; returns its place.
local function insert_event(history, item, effect, time, type, id)
  local n, k = history.n, history.n + 1
  if n == 0 then
    history.last, history.type, history.times = time, type, nil
  elseif time >= history.last then
    history.gaps = history.gaps .. gap_code(time - history.last)
    history.last = time
    if history.times then history.times[k] = time end
  else
    local times = times_of(history)
    while k > 1 and times[k - 1] > time do k = k - 1 end
    table.insert(times, k, time)
    pack_times(history, times)
  end
  make_room_for(history, item)
  local width = history.item_bytes
  history.hashes = put_in(history.hashes, k, HASH_BYTES, id)
  history.items = put_in(history.items, k, width, pack(ITEM_FORMATS[width], item))
  if type ~= history.type or history.types ~= '' then
    if history.types == '' then history.types = rep(char(history.type), n) end
    history.types = put_in(history.types, k, 1, char(type))
  end
  if effect ~= 0 or history.effects ~= '' then
    if history.effects == '' then history.effects = rep('\0', n) end
    history.effects = put_in(history.effects, k, 1, char(effect))
  end
  history.n = n + 1
  return k
end

-- Removes the first events, of more.
local function drop_first(history, dropped)
  local at = 1
  for _ = 1, dropped do at = at + gap_bytes(byte(history.gaps, at)) end
  history.n, history.times = history.n - dropped, nil
  history.hashes = sub(history.hashes, dropped * HASH_BYTES + 1)
  history.items = sub(history.items, dropped * history.item_bytes + 1)
  history.types, history.effects = sub(history.types, dropped + 1), sub(history.effects, dropped + 1)
  history.gaps = sub(history.gaps, at)
end

-- Drops columns that say nothing any more.
local function drop_plain_columns(history)
  if not find(history.effects, '[^%z]') then history.effects = '' end
  if history.types ~= '' and history.types == rep(sub(history.types, 1, 1), history.n) then
    history.type, history.types = byte(history.types), ''
  end
end

local function remove_event(history, k)
  local times = times_of(history)
  table.remove(times, k)
  pack_times(history, times)
  history.hashes = set_in(history.hashes, k, HASH_BYTES, '')
  history.items = set_in(history.items, k, history.item_bytes, '')
  history.types, history.effects = set_in(history.types, k, 1, ''), set_in(history.effects, k, 1, '')
  history.n = history.n - 1
  drop_plain_columns(history)
end

local function set_type(history, k, type)
  if type == type_at(history, k) then return end
  if history.types == '' then history.types = rep(char(history.type), history.n) end
  history.types = set_in(history.types, k, 1, char(type))
  drop_plain_columns(history)
end

-- Gives the k-th event another effect and item.
local function set_event(history, k, effect, item)
  if history.effects == '' then history.effects = rep('\0', history.n) end
  history.effects = set_in(history.effects, k, 1, char(effect))
  make_room_for(history, item)
  local width = history.item_bytes
  history.items = set_in(history.items, k, width, pack(ITEM_FORMATS[width], item))
  drop_plain_columns(history)
end

-- Puts the k-th event of a history into another one, where its time belongs; returns its item, 0 where
-- it is not live.
local function copy_event(history, k, into)
  local item, effect = item_at(history, k), effect_at(history, k)
  local id = sub(history.hashes, (k - 1) * HASH_BYTES + 1, k * HASH_BYTES)
  insert_event(into, item, effect, times_of(history)[k], type_at(history, k), id)
  return effect == 0 and item or 0
end
