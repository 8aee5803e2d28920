-- Stores served lists within a budget: in buckets, of which the oldest is dropped.
--
-- KEYS[1]  {group}:served   hash    number of each bucket -> "<bytes> <second it was opened>"
--          {group}:served:<number>  one bucket: a hash, id -> indexes of the items, 4 bytes each
-- KEYS[2]  {group}:items
-- KEYS[3]  {group}:tried    hash    index of an item -> times it was shown for exploration
-- ARGV[1]  MessagePack of now (seconds), ttl (seconds), budget (bytes), buckets, overhead (bytes of a
--          list beside its id and items), most_tried, share (of the server's memory limit, from which
--          no list is stored), lists of item ids, and tried item ids; in a group of several shards
--          the indexes of all these by id, 0 for an unknown one
-- ARGV[n]  the id of list n - 1: bytes, for which the MessagePack here has no type
--
-- Returns the number of stored lists. When the server's memory is nearly full it is 0, and the oldest
-- bucket is dropped: learned state needs the room. Dropping takes no memory, and so a full server does
-- not refuse it.

local request = cmsgpack.unpack(ARGV[1])
local call = redis.call
local book = KEYS[1]

local bytes, opened, total, count, first, last = {}, {}, 0, 0, nil, 0
local stored = call('HGETALL', book)
for at = 1, #stored, 2 do
  local n = tonumber(stored[at])
  local size, second = string.match(stored[at + 1], '^(%d+) (%d+)$')
  bytes[n], opened[n] = tonumber(size), tonumber(second)
  total, count, last = total + bytes[n], count + 1, math.max(last, n)
  first = math.min(first or n, n)
end

local function drop_oldest()
  local name = string.format('%d', first)
  call('UNLINK', book .. ':' .. name)
  call('HDEL', book, name)
  total, count, bytes[first] = total - bytes[first], count - 1, nil
  first = first + 1
end

local function is_nearly_full()
  local told = redis.pcall('INFO', 'memory')
  if type(told) ~= 'string' then return false end -- not permitted
  local limit = tonumber(string.match(told, '\nmaxmemory:(%d+)')) or 0
  local used = tonumber(string.match(told, 'used_memory:(%d+)')) or 0
  return limit > 0 and used >= request.share * limit
end

if is_nearly_full() then
  if count > 0 then drop_oldest() end
  return 0
end

local function open_bucket()
  last = last + 1
  first = first or last
  bytes[last], opened[last], count = 0, request.now, count + 1
end

local function keep(id, items)
  local indexes = {}
  if request.indexes then
    for n, item in ipairs(items) do indexes[n] = request.indexes[item] or 0 end
  elseif #items > 0 then
    for n, index in ipairs(call('HMGET', KEYS[2], unpack(items))) do indexes[n] = tonumber(index or nil) or 0 end
  end
  local value = struct.pack('<' .. string.rep('I', #indexes), unpack(indexes))
  local size = #id + #value + request.overhead
  if count == 0 or bytes[last] + size > request.budget / request.buckets
    or request.now - opened[last] >= request.ttl / request.buckets then
    open_bucket()
  end
  local name = book .. ':' .. string.format('%d', last)
  call('HSET', name, id, value)
  if bytes[last] == 0 then call('EXPIRE', name, math.ceil(request.ttl * (1 + 1 / request.buckets))) end
  bytes[last], total = bytes[last] + size, total + size
  -- All lists of a bucket are older than the next bucket.
  while count > 1 and (total > request.budget or count > request.buckets + 1
    or opened[first + 1] <= request.now - request.ttl) do
    drop_oldest()
  end
end

for n, items in ipairs(request.lists) do keep(ARGV[n + 1], items) end
local changed = {}
for n, size in pairs(bytes) do
  changed[#changed + 1] = string.format('%d', n)
  changed[#changed + 1] = string.format('%d %d', size, opened[n])
end
if #changed > 0 then
  call('HSET', book, unpack(changed))
  call('EXPIRE', book, 2 * request.ttl)
end

for _, item in ipairs(request.tried) do
  local index = request.indexes and request.indexes[item] or call('HGET', KEYS[2], item)
  if index and index ~= 0 then call('HINCRBY', KEYS[3], index, 1) end
end
-- Most of so many items are no longer new, and the others are soon counted again.
if call('HLEN', KEYS[3]) > request.most_tried then call('DEL', KEYS[3]) end
return #request.lists
