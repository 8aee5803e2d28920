-- Applies messages, exactly once each: one call is one atomic step, of any number of dataset groups.
-- Comes behind `local function open_group(...)`, whose body is apply_group.lua, and behind witness.lua.
--
-- KEYS[1]  {group}:watermarks of the group that stands in the settings, which also routes the call in
--          a cluster. They say up to where messages are in effect, whosever they are.
-- KEYS[2]  {recommender}:groups, where messages of other groups are among them
-- ARGV[1]  MessagePack of what apply_group.lua takes, and
--   prefix   "{group}:" of the group that stands in the settings
--   parts    {field, expected, messages, checksum of the message at `expected`, -1 if unknown} of
--            each partition, where a message is
--            {offset, user or "", session, shard, accepted_at, events, group or "" for that of the
--            settings, time (ms), checksum, time up to which the user is erased (seconds; 0: not)}
--            and an event is
--            {item or "", time (whole seconds), type, log2 weight, is purchase, 48-bit hash, lists of
--            values by the columns that may be contextual, millisecond of the time}
--
-- Returns {status, watermark, offset, refused event numbers} of each part, then the counts.
--   status "applied"   the part is in effect up to its watermark
--          "lost"      the store is not where the worker left it: read on from where it is
--          "full"      the message at `offset` names new items beyond the limit
--          "gone"      the message at `offset` is of a group that does not exist
--                      nothing of it, nor of what follows in the part, is in effect

local request = cmsgpack.unpack(ARGV[1])
local call = redis.call

local groups, marks, witnesses = {}, {}, {}

local function group_of(name)
  local group = groups[name]
  if group == nil then
    if name == '' then
      group = open_group(request.prefix, request)
    elseif call('SISMEMBER', KEYS[2], name) == 1 then
      local prefix = '{' .. name .. '}:'
      group = open_group(prefix, request)
      -- Its own watermarks: were those of the settings' group lost alone, its events would come
      -- again.
      group.key, group.marks = prefix .. 'watermarks', {}
    else
      group = false
    end
    groups[name] = group
  end
  return group
end

local function mark_of(key, field)
  return tonumber(call('HGET', key, field) or nil) or -1
end

local function write_marks(key, moved)
  for field, mark in pairs(moved) do call('HSET', key, field, string.format('%.0f', mark)) end
end

-- Whether the group has the message in its effects already.
local function is_repeated(group, field, offset)
  if not group.marks then return false end
  group.marks[field] = group.marks[field] or mark_of(group.key, field)
  return offset <= group.marks[field]
end

-- Brings a message into effect; or says why not, by a status and the numbers of refused events.
local function apply_message(field, message)
  local group, erased_at = group_of(message[7]), message[10]
  -- Of a group that is gone, everybody has been erased.
  if not group and erased_at > 0 then return nil end
  if not group then return 'gone', {} end
  if is_repeated(group, field, message[1]) then return nil end
  if erased_at > 0 then
    group.erase(message[2], math.floor(erased_at * 1000))
  else
    local erased = group.erased_events(message)
    local refused = group.refused_events(message[6], erased)
    if #refused > 0 then return 'full', refused end
    group.apply_message(message, erased)
  end
  if group.marks then group.marks[field] = message[1] end
end

local function apply_part(part)
  local field, expected, messages = part[1], part[2], part[3]
  local before = mark_of(KEYS[1], field)
  if not is_where_left(request.prefix, field, before, expected, part[4]) then
    return {'lost', before, -1, {}}
  end
  local watermark, stopped_at, status, refused = before, -1, nil, nil
  for _, message in ipairs(messages) do
    if message[1] > watermark then
      if #message[6] > 0 or message[10] > 0 then
        status, refused = apply_message(field, message)
        if status then
          stopped_at = message[1]
          break
        end
      end
      watermark = message[1]
      witnesses[field] = message
    end
  end
  if watermark > before then marks[field] = watermark end
  return {status or 'applied', watermark, stopped_at, refused or {}}
end

local answer = {}
local counts = {events = 0, purchases = 0, duplicates = 0, items = 0, users = 0, sessions = 0, erased = 0}
for number, part in ipairs(request.parts) do answer[number] = apply_part(part) end
for _, group in pairs(groups) do
  if group then
    group.write()
    for name, count in pairs(group.counts) do counts[name] = counts[name] + count end
    if group.marks then write_marks(group.key, group.marks) end
  end
end
write_marks(KEYS[1], marks)
for field, message in pairs(witnesses) do
  call('HSET', request.prefix .. 'witnesses', field,
    struct.pack('<ddd', message[1], message[8], message[9]))
end
return cmsgpack.pack({answer, counts})
