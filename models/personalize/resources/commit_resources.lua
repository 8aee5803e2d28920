-- One atomic change of the registry of resources; see models/personalize/resources/registry.py.
--
-- KEYS[1]  routes the call in a cluster: every key starts with {recommender}
-- ARGV[1]  MessagePack of
--   prefix   "{recommender}:resources:"
--   claim    {path, number}: the job's claim, which must still hold
--            this and any of the following may be absent
--   expect   {path, number, revision} of each document as it was read; number 0: no document
--   alive    paths that must be ACTIVE
--   bounds   {index, least, most}: limits of an index' size
--   put      {path, document, number, indexes joined, indexes left}
--   remove   {path, indexes left}
--   queue    {path, time from which it may be claimed}; a negative time: no longer to be claimed
--
-- Returns {"done", 0}; or, without a change, the condition that did not hold ("claim", "expect",
-- "alive" or "bounds") and its number, counted from 0.

local request = cmsgpack.unpack(ARGV[1])
local call = redis.call
local documents, indexes = request.prefix .. 'document:', request.prefix .. 'index:'
local queue, claims = request.prefix .. 'queue', request.prefix .. 'claims'
local tries = request.prefix .. 'tries'

local function stored(path)
  local text = call('GET', documents .. path)
  return text and cjson.decode(text)
end

local function leave_queue(path)
  call('ZREM', queue, path)
  call('HDEL', claims, path)
  call('HDEL', tries, path)
end

if request.claim then
  local path, number = request.claim[1], request.claim[2]
  if tonumber(call('HGET', claims, path) or nil) ~= number then return {'claim', 0} end
end
for n, one in ipairs(request.expect or {}) do
  local found = stored(one[1])
  if (found and found.number or 0) ~= one[2] or (found and found.revision or 0) ~= one[3] then
    return {'expect', n - 1}
  end
end
for n, path in ipairs(request.alive or {}) do
  local found = stored(path)
  if not found or found.status ~= 'ACTIVE' then return {'alive', n - 1} end
end
for n, one in ipairs(request.bounds or {}) do
  local size = call('ZCARD', indexes .. one[1])
  if size < one[2] or size > one[3] then return {'bounds', n - 1} end
end

for _, one in ipairs(request.put or {}) do
  call('SET', documents .. one[1], one[2])
  for _, name in ipairs(one[4]) do call('ZADD', indexes .. name, one[3], one[1]) end
  for _, name in ipairs(one[5]) do call('ZREM', indexes .. name, one[1]) end
end
for _, one in ipairs(request.remove or {}) do
  call('DEL', documents .. one[1])
  for _, name in ipairs(one[2]) do call('ZREM', indexes .. name, one[1]) end
  leave_queue(one[1])
end
for _, one in ipairs(request.queue or {}) do
  if one[2] < 0 then
    leave_queue(one[1])
  else
    call('ZADD', queue, one[2], one[1])
  end
end
return {'done', 0}
