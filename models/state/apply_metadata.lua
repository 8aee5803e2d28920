-- Takes in metadata of items and users: each record takes the place of an older one of its id.
-- One call is one atomic step. Repeating it, and any order of records, leads to the same state.
-- Comes behind witness.lua.
--
-- KEYS[1]  {group}:watermarks of the group that stands in the settings
-- KEYS[2]  {recommender}:groups, where records of other groups are among them
-- ARGV[1]  MessagePack of
--   prefix   "{group}:" of the group that stands in the settings
--   limits   items, users: how many a group may hold; listed: length of a list
--   parts    {field, expected, records, checksum of the message at `expected`, -1 if unknown} of
--            each partition; without a field no watermark is kept. A record is {offset, group or ""
--            for that of the settings, "items" or "users" or "", id, at, created or 0, JSON text or
--            "", categories, time (ms), checksum}; one of neither kind moves the watermark only, and
--            one without a text removes what is known
--
-- Returns {status, watermark, offset, {}} of each part.
--   status "applied"   the part is in effect up to its watermark
--          "lost"      the store is not where the worker left it: read on from where it is
--          "full"      the record at `offset` is of one more item or user than there may be
--          "gone"      the record at `offset` is of a group that does not exist, and no removal
--                      nothing of it, nor of what follows in the part, is in effect
--
-- Layouts: models/state/metadata.py.

local request = cmsgpack.unpack(ARGV[1])
local limits = request.limits
local call, max, min, floor = redis.call, math.max, math.min, math.floor
local pack, unpack_ = struct.pack, struct.unpack

local PAGE, STAT, LAST, HEAD, MINUTE = 64, 48, 12, 24, 60

local groups = {}

local function group_of(name)
  local group = groups[name]
  if group == nil then
    if name == '' then
      group = {prefix = request.prefix, items = 0, users = 0}
    else
      local known = call('SISMEMBER', KEYS[2], name) == 1
      group = known and {prefix = '{' .. name .. '}:', items = 0, users = 0}
    end
    groups[name] = group
  end
  return group
end

local function listed(key, score, index)
  call('ZADD', key, string.format('%.17g', score), index)
  local excess = call('ZCARD', key) - limits.listed
  if excess > 0 then call('ZREMRANGEBYRANK', key, 0, excess - 1) end
end

local function categories_of(prefix, index)
  local raw = call('HGET', prefix .. 'categories', index)
  return raw and cmsgpack.unpack(raw) or {}
end

-- When the item was last touched, to the minute, as apply_group.lua lists it.
local function last_event(prefix, index)
  local at = (index % PAGE) * STAT + LAST
  local raw = call('GETRANGE', prefix .. 'stats:' .. floor(index / PAGE), at, at + 3)
  local last = #raw == 4 and unpack_('<I', raw) or 0
  return last - last % MINUTE
end

-- Puts an item where its categories are listed, and takes it out of those it has left.
local function list_item(prefix, index, created, categories)
  local kept, touched = {}, max(created, last_event(prefix, index))
  for _, name in ipairs(categories) do
    kept[name] = true
    listed(prefix .. 'category:' .. name, touched, index)
  end
  for _, name in ipairs(categories_of(prefix, index)) do
    if not kept[name] then call('ZREM', prefix .. 'category:' .. name, index) end
  end
  if #categories > 0 then
    call('HSET', prefix .. 'categories', index, cmsgpack.pack(categories))
  else
    call('HDEL', prefix .. 'categories', index)
  end
  listed(prefix .. 'top:fresh', created, index)
end

local function new_item(prefix, id)
  local index = call('HINCRBY', prefix .. 'counts', 'item_index', 1)
  call('HSET', prefix .. 'items', id, index)
  call('HSET', prefix .. 'ids', index, id)
  call('HINCRBY', prefix .. 'counts', 'items', 1)
  return index
end

local function remove_item(prefix, index)
  if call('HDEL', prefix .. 'properties', index) == 0 then return 'same' end
  list_item(prefix, index, 0, {})
  call('ZREM', prefix .. 'top:fresh', index)
  return 'changed'
end

local function put_item(prefix, id, at, created, body, categories)
  local index = tonumber(call('HGET', prefix .. 'items', id) or nil)
  if body == '' then return index and remove_item(prefix, index) or 'same' end
  if not index then
    if call('HLEN', prefix .. 'items') >= limits.items then return 'full' end
    index = new_item(prefix, id)
  end
  local first, held = at, call('HGET', prefix .. 'properties', index)
  if held then
    local held_at, held_first, held_created = unpack_('<ddd', held)
    first = min(first, held_first)
    local held_body = string.sub(held, HEAD + 1)
    if at < held_at then
      -- Older than what is known: it tells only that the item is older, too.
      at, created, body = held_at, held_created, held_body
      categories = categories_of(prefix, index)
    end
    if at == held_at and first == held_first and body == held_body then return 'same' end
  end
  call('HSET', prefix .. 'properties', index, pack('<ddd', at, first, created) .. body)
  list_item(prefix, index, created > 0 and created or first, categories)
  return 'changed'
end

local function put_user(prefix, id, at, body)
  local key = prefix .. 'users'
  if body == '' then return call('HDEL', key, id) == 1 and 'changed' or 'same' end
  local held, record = call('HGET', key, id), pack('<ddd', at, 0, 0) .. body
  if held and (at < unpack_('<d', held) or held == record) then return 'same' end
  if not held and call('HLEN', key) >= limits.users then return 'full' end
  call('HSET', key, id, record)
  return 'changed'
end

local function take_in(record)
  local kind = record[3]
  if kind == '' then return 'same' end
  local group = group_of(record[2])
  -- What is gone has been removed: the removals that come after it say nothing new.
  if not group then return record[7] == '' and 'same' or 'gone' end
  local status
  if kind == 'items' then
    status = put_item(group.prefix, record[4], record[5], record[6], record[7], record[8])
  else
    status = put_user(group.prefix, record[4], record[5], record[7])
  end
  if status == 'changed' then group[kind] = group[kind] + 1 end
  return status
end

local function apply_part(part)
  local field, expected, records = part[1], part[2], part[3]
  local before = -1
  if field ~= '' then before = tonumber(call('HGET', KEYS[1], field) or nil) or -1 end
  if not is_where_left(request.prefix, field, before, expected, part[4]) then
    return {'lost', before, -1, {}}
  end
  local watermark, status, stopped_at, last = before, 'applied', -1, nil
  for _, record in ipairs(records) do
    if record[1] > watermark then
      local outcome = take_in(record)
      if outcome == 'full' or outcome == 'gone' then
        status, stopped_at = outcome, record[1]
        break
      end
      watermark, last = record[1], record
    end
  end
  if field ~= '' and watermark > before then
    call('HSET', KEYS[1], field, string.format('%.0f', watermark))
    call('HSET', request.prefix .. 'witnesses', field, pack('<ddd', last[1], last[9], last[10]))
  end
  return {status, watermark, stopped_at, {}}
end

local answer = {}
for number, part in ipairs(request.parts) do answer[number] = apply_part(part) end
for _, group in pairs(groups) do
  if group and group.items > 0 then
    call('HINCRBY', group.prefix .. 'counts', 'item_updates', group.items)
  end
  if group and group.users > 0 then
    call('HINCRBY', group.prefix .. 'counts', 'user_updates', group.users)
  end
end
return cmsgpack.pack(answer)
