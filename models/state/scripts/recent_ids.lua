-- A group's newest events, to recognise one that comes again under another session.
--
-- Takes the group's prefix, "{group}:". A history knows the ids of its own events only, and an
-- anonymous session may turn out to be a user's: until then only the event itself tells that it has
-- been counted. Ids alone would not do, for there are clients that number the events of each session
-- from one: two events are the same if id, item, type and time are.
--
-- Memory is fixed: a table of `limits.recent` records in buckets, where the oldest record of a bucket
-- makes room.

local prefix = ...

local RECORDS_PER_BUCKET = 8
local BUCKET_BYTES = RECORDS_PER_BUCKET * RECENT_EVENT_BYTES
local key, n_buckets = prefix .. 'recent', floor(limits.recent / RECORDS_PER_BUCKET)

-- Whether the bucket has the event, of the same owner or where one of the two is not known (0). An
-- event's name is its record up to the owner.
local function is_in_bucket(bucket, name, number)
  local from = 1
  while true do
    local at = find(bucket, name, from, true)
    if not at then return false end
    if (at - 1) % RECENT_EVENT_BYTES == 0 then
      local other = unpack_('<I', bucket, at + RECENT_OWNER_AT)
      if other == number or other == 0 or number == 0 then return true end
    end
    from = at + 1
  end
end

-- Place of an event's bucket, and its record.
local function record_of(item, time, millisecond, code, hash, number)
  -- 32 bits of item, time and type: 1009 is a prime, and a type's code takes 8 bits.
  local mixed = ((item * HASH_FACTOR + time) % 2 ^ 32 * 1009 + millisecond * 256 + code) % 2 ^ 32
  return (mixed + hash) % n_buckets * BUCKET_BYTES, pack('<I5II', hash, mixed, number)
end

-- Whether the event has been counted already; from now on it has. `number` is that of the user's
-- history, 0 for an anonymous session.
local function is_repeated(item, time, millisecond, code, hash, number)
  local at, record = record_of(item, time, millisecond, code, hash, number)
  local bucket = call('GETRANGE', key, at, at + BUCKET_BYTES - 1)
  if is_in_bucket(bucket, sub(record, 1, RECENT_OWNER_AT), number) then return true end
  if #bucket < BUCKET_BYTES then
    -- The first event of all, or the first since the setting has made the table larger.
    local stored = call('GET', key) or ''
    call('SET', key, stored .. rep('\0', n_buckets * BUCKET_BYTES - #stored))
    bucket = rep('\0', BUCKET_BYTES)
  end
  call('SETRANGE', key, at, record .. sub(bucket, 1, -RECENT_EVENT_BYTES - 1))
  return false
end

-- Forgets an event of one owner: it counts when it comes again.
local function forget(item, time, millisecond, code, hash, number)
  local at, record = record_of(item, time, millisecond, code, hash, number)
  local bucket = call('GETRANGE', key, at, at + BUCKET_BYTES - 1)
  local found = locate(bucket, record, RECENT_EVENT_BYTES, 0)
  if found then call('SETRANGE', key, at + found - 1, rep('\0', RECENT_EVENT_BYTES)) end
end

return {is_repeated = is_repeated, forget = forget}
