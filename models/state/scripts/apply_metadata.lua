-- Applies metadata records of items and users: each replaces an older record of its id. One call is
-- one atomic step. Repeating it, and any order of records, leads to the same state.
--
-- Comes behind prelude.lua; see models/state/catalogue/metadata.py, which has the layouts, too.
--
-- KEYS[1]  {group}:watermarks of the group in the settings, or of the shard
-- KEYS[2]  {recommender}:groups, where records of other groups are among them
-- ARGV[1]  MessagePack of
--   prefix   "{group}:" of the group in the settings
--   limits   items, users: of a group; listed: length of a list; updated: items listed as changed
--   parts    `RecordPart`s of `RecordEntry`s; without a field no watermark is kept. A record of no
--            kind moves the watermark only, and one without a text removes the stored one
--   shard, shards   where the group has several: this shard's number, and how many there are. Then
--            records have the index of their item, which the shard of its id has given; 0: none
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
    group = prefix
      and {prefix = prefix, terms = open_terms(prefix), items = 0, users = 0, updated = {}} or false
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

local function event_count(prefix, index)
  local at = (index % STATS_PER_PAGE) * STAT_BYTES
  local raw = call('GETRANGE', prefix .. 'stats:' .. floor(index / STATS_PER_PAGE), at, at + 3)
  return #raw == 4 and unpack_('<I', raw) or 0
end

local function packed_terms(terms)
  return #terms > 0 and pack('<' .. rep('I', #terms), unpack(terms)) or ''
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

-- Place of an item among those of its shard, in strings with a place for each: a shard has whole pages
-- of indexes (`own_number`).
local function own_place(index)
  if not request.shards then return index end
  return floor(floor(index / STATS_PER_PAGE) / request.shards) * STATS_PER_PAGE + index % STATS_PER_PAGE
end

-- Prefixes of groups in which an item was hidden, or is shown again.
local with_hidden = {}

local function set_hidden(prefix, index, hidden)
  local key = prefix .. 'hidden'
  if call('GETBIT', key, own_place(index)) ~= hidden then
    call('SETBIT', key, own_place(index), hidden)
    with_hidden[prefix] = true
  end
end

-- Seconds before the expiry of an item in which a change of it is told at once.
local SOON_S = 60
-- Prefixes of groups in which items expire at other times than before.
local with_expiry = {}

local function expiry_of(prefix, index)
  local at = own_place(index) * EXPIRY_BYTES
  local raw = call('GETRANGE', prefix .. 'expires', at, at + EXPIRY_BYTES - 1)
  return #raw == EXPIRY_BYTES and unpack_('<I', raw) or 0
end

local function set_expiry(group, index, expires, at)
  local prefix = group.prefix
  if group.expires == nil then group.expires = call('EXISTS', prefix .. 'expires') == 1 end
  if not group.expires and expires == 0 then return end
  local stored = expiry_of(prefix, index)
  if stored == expires then return end
  call('SETRANGE', prefix .. 'expires', own_place(index) * EXPIRY_BYTES, pack('<I', expires))
  group.expires = true
  with_expiry[prefix] = true
  -- Readers find other changes within `cache_s`, before they matter.
  if (expires > 0 and expires or stored) <= at + SOON_S then
    with_hidden[prefix] = true
  end
end

-- Prefixes of groups in which items are variants of other products than before.
local with_variants = {}

local function product_of(prefix, index)
  local at = own_place(index) * PRODUCT_BYTES
  local raw = call('GETRANGE', prefix .. 'variants', at, at + PRODUCT_BYTES - 1)
  return #raw == PRODUCT_BYTES and unpack_('<d', raw) or 0
end

local function set_product(group, index, product)
  local prefix = group.prefix
  if group.variants == nil then group.variants = call('EXISTS', prefix .. 'variants') == 1 end
  if not group.variants and product == 0 then return end
  local stored = product_of(prefix, index)
  if stored == product then return end
  call('SETRANGE', prefix .. 'variants', own_place(index) * PRODUCT_BYTES, pack('<d', product))
  if (stored == 0) ~= (product == 0) then
    call('HINCRBY', prefix .. 'counts', 'variants', product == 0 and -1 or 1)
  end
  group.variants = true
  with_variants[prefix] = true
end

-- Records: time, first time, creation (doubles), JSON text. Each function returns "changed", "same" or
-- "full".

local function remove_item(group, index, at)
  local prefix = group.prefix
  if call('HDEL', prefix .. 'properties', index) == 0 then return 'same' end
  list_item(prefix, index, 0, {})
  set_hidden(prefix, index, 0)
  set_expiry(group, index, 0, at)
  set_product(group, index, 0)
  group.terms.put(index, '', 0)
  call('ZREM', prefix .. 'top:fresh', index)
  return 'changed'
end

local function put_item(group, id, index, at, created, text, categories, hidden, terms, expires, product)
  local prefix = group.prefix
  if text == '' then return index and remove_item(group, index, at) or 'same' end
  if not index then
    if request.shards then return 'full' end
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
      categories, hidden = categories_of(prefix, index), call('GETBIT', prefix .. 'hidden', own_place(index))
      terms = call('HGET', prefix .. 'terms', index) or ''
      expires, product = expiry_of(prefix, index), product_of(prefix, index)
    end
    if at == stored_at and first == stored_first and text == stored_text then return 'same' end
  end
  call('HSET', prefix .. 'properties', index, pack('<ddd', at, first, created) .. text)
  list_item(prefix, index, created > 0 and created or first, categories)
  set_hidden(prefix, index, hidden)
  set_expiry(group, index, expires, at)
  set_product(group, index, product)
  group.terms.put(index, terms, event_count(prefix, index))
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

-- Index of the item of a record; nil where it has none.
local function index_of(prefix, record)
  if request.shards then return record[ITEM_INDEX] > 0 and record[ITEM_INDEX] or nil end
  return tonumber(call('HGET', prefix .. 'items', record[ID]) or nil)
end

-- Applies a record; or refuses it with a status.
local function apply_record(_, record)
  local kind = record[KIND]
  if kind == '' then return nil end
  local group = group_of(record[GROUP])
  -- A group that does not exist has no record to remove.
  if not group and record[TEXT] == '' then return nil end
  if not group then return 'gone' end
  local status, index
  if kind == 'items' then
    index = index_of(group.prefix, record)
    status = put_item(group, record[ID], index, record[AT], record[CREATED], record[TEXT],
      record[CATEGORIES], record[HIDDEN], packed_terms(record[TERMS]), record[EXPIRES], record[PRODUCT])
  else
    status = put_user(group.prefix, record[ID], record[AT], record[TEXT])
  end
  if status == 'changed' then
    group[kind] = group[kind] + 1
    if kind == 'items' then
      group.updated[index or index_of(group.prefix, record)] = group.items
    end
  end
  return status == 'full' and status or nil
end

local results = {}
for number, part in ipairs(request.parts) do results[number] = apply_part(part, apply_record) end
for _, group in pairs(groups) do
  if group then group.terms.write() end
  if group and group.items > 0 then
    local before = call('HINCRBY', group.prefix .. 'counts', 'item_updates', group.items) - group.items
    for index, number in pairs(group.updated) do
      call('ZADD', group.prefix .. 'updated', string.format('%.0f', before + number), index)
    end
    trim_sorted_set(group.prefix .. 'updated', limits.updated)
  end
  if group and group.users > 0 then
    call('HINCRBY', group.prefix .. 'counts', 'user_updates', group.users)
  end
end
for prefix in pairs(with_expiry) do
  call('HINCRBY', prefix .. 'counts', 'expiry_updates', 1)
end
for prefix in pairs(with_variants) do
  call('HINCRBY', prefix .. 'counts', 'variant_updates', 1)
end
for prefix in pairs(with_hidden) do
  call('HINCRBY', prefix .. 'counts', 'hidden_updates', 1)
  -- Number 0 is no item's. A client that may not publish still applies records.
  redis.pcall('PUBLISH', prefix .. 'changed', '0')
end
write_watermarks()
return cmsgpack.pack(results)
