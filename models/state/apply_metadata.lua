-- Applies metadata records of items and users: each replaces an older record of its id. One call is
-- one atomic step. Repeating it, and any order of records, leads to the same state.
--
-- Comes behind prelude.lua; see models/state/metadata.py, which has the layouts, too.
--
-- KEYS[1]  {group}:watermarks of the group in the settings
-- KEYS[2]  {recommender}:groups, where records of other groups are among them
-- ARGV[1]  MessagePack of
--   prefix   "{group}:" of the group in the settings
--   limits   items, users: of a group; listed: length of a list
--   parts    `RecordPart`s of `RecordEntry`s; without a field no watermark is kept. A record of no
--            kind moves the watermark only, and one without a text removes the stored one
--
-- Returns {status, watermark, offset, {}} of each part.
--   status "applied"   the part is in effect up to its watermark
--          "lost"      the store is not where the worker left it: read on from where it is
--          "full"      the record at `offset` is of one item or user more than the limit
--          "gone"      the record at `offset` is of a group that does not exist, and no removal
--                      nothing of it, nor of what follows in the part, is in effect

local groups = {}

local function group_of(name)
  local group = groups[name]
  if group == nil then
    local prefix = prefix_of(name)
    group = prefix and {prefix = prefix, items = 0, users = 0} or false
    groups[name] = group
  end
  return group
end

local function add_to_list(key, score, index)
  call('ZADD', key, string.format('%.17g', score), index)
  trim_sorted_set(key, limits.listed)
end

local function categories_of(prefix, index)
  local raw = call('HGET', prefix .. 'categories', index)
  return raw and cmsgpack.unpack(raw) or {}
end

-- Time of an item's last event, to the minute, as items.lua orders lists of categories; 0 without one.
local function last_event(prefix, index)
  local at = (index % STATS_PER_PAGE) * STAT_BYTES + STAT_LAST_AT
  local raw = call('GETRANGE', prefix .. 'stats:' .. floor(index / STATS_PER_PAGE), at, at + 3)
  local last = #raw == 4 and unpack_('<I', raw) or 0
  return last - last % MINUTE_S
end

-- Lists an item under its categories, and no longer under those it has left.
local function list_item(prefix, index, created, categories)
  local kept, score = {}, max(created, last_event(prefix, index))
  for _, name in ipairs(categories) do
    kept[name] = true
    add_to_list(prefix .. 'category:' .. name, score, index)
  end
  for _, name in ipairs(categories_of(prefix, index)) do
    if not kept[name] then call('ZREM', prefix .. 'category:' .. name, index) end
  end
  if #categories > 0 then
    call('HSET', prefix .. 'categories', index, cmsgpack.pack(categories))
  else
    call('HDEL', prefix .. 'categories', index)
  end
  add_to_list(prefix .. 'top:fresh', created, index)
end

-- Records: time, first time, creation (doubles), JSON text. Each function returns "changed", "same" or
-- "full".

local function remove_item(prefix, index)
  if call('HDEL', prefix .. 'properties', index) == 0 then return 'same' end
  list_item(prefix, index, 0, {})
  call('ZREM', prefix .. 'top:fresh', index)
  return 'changed'
end

local function put_item(prefix, id, at, created, text, categories)
  local index = tonumber(call('HGET', prefix .. 'items', id) or nil)
  if text == '' then return index and remove_item(prefix, index) or 'same' end
  if not index then
    if call('HLEN', prefix .. 'items') >= limits.items then return 'full' end
    index = store_item(prefix, id)
    call('HINCRBY', prefix .. 'counts', 'items', 1)
  end
  local first, stored = at, call('HGET', prefix .. 'properties', index)
  if stored then
    local stored_at, stored_first, stored_created = unpack_('<ddd', stored)
    first = min(first, stored_first)
    local stored_text = sub(stored, RECORD_HEAD_BYTES + 1)
    if at < stored_at then
      -- Older than the stored record: it tells only that the item is older, too.
      at, created, text = stored_at, stored_created, stored_text
      categories = categories_of(prefix, index)
    end
    if at == stored_at and first == stored_first and text == stored_text then return 'same' end
  end
  call('HSET', prefix .. 'properties', index, pack('<ddd', at, first, created) .. text)
  list_item(prefix, index, created > 0 and created or first, categories)
  return 'changed'
end

local function put_user(prefix, id, at, text)
  local key = prefix .. 'users'
  if text == '' then return call('HDEL', key, id) == 1 and 'changed' or 'same' end
  local stored, record = call('HGET', key, id), pack('<ddd', at, 0, 0) .. text
  if stored and (at < unpack_('<d', stored) or stored == record) then return 'same' end
  if not stored and call('HLEN', key) >= limits.users then return 'full' end
  call('HSET', key, id, record)
  return 'changed'
end

-- Applies a record; or refuses it with a status.
local function apply_record(_, record)
  local kind = record[KIND]
  if kind == '' then return nil end
  local group = group_of(record[GROUP])
  -- A group that does not exist has no record to remove.
  if not group and record[TEXT] == '' then return nil end
  if not group then return 'gone' end
  local status
  if kind == 'items' then
    status = put_item(group.prefix, record[ID], record[AT], record[CREATED], record[TEXT],
      record[CATEGORIES])
  else
    status = put_user(group.prefix, record[ID], record[AT], record[TEXT])
  end
  if status == 'changed' then group[kind] = group[kind] + 1 end
  return status == 'full' and status or nil
end

local results = {}
for number, part in ipairs(request.parts) do results[number] = apply_part(part, apply_record) end
for _, group in pairs(groups) do
  if group and group.items > 0 then
    call('HINCRBY', group.prefix .. 'counts', 'item_updates', group.items)
  end
  if group and group.users > 0 then
    call('HINCRBY', group.prefix .. 'counts', 'user_updates', group.users)
  end
end
write_watermarks()
return cmsgpack.pack(results)
