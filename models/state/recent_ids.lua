-- A group's newest events, among which an event is recognised that comes again under another session.
-- The body of a function that apply_group.lua calls, once a step for each group that has events in it.
--
-- Takes the group's prefix and the request of apply_batch.lua. A history knows the ids of its own events only,
-- and a session without a user may turn out to be somebody's: until then nothing but the event itself
-- says that it has been counted. Ids alone would not do, for there are clients that number the events
-- of each session from one: equal are events of one id, item, type and moment.
--
-- Memory is fixed: a table of `limits.recent` records in buckets of eight, where the oldest of a bucket
-- makes room. Layouts: models/state/layout.py.

local prefix, request = ...
local call, find, sub, rep = redis.call, string.find, string.sub, string.rep
local pack, unpack_ = struct.pack, struct.unpack

local NAME, RECORD, BUCKET = 10, 14, 8 * 14
local key, buckets = prefix .. 'recent', math.floor(request.limits.recent / 8)

-- Whether the bucket has the event, of the same owner or where one of the two is not known (0).
local function is_among(bucket, name, number)
  local from = 1
  while true do
    local at = find(bucket, name, from, true)
    if not at then return false end
    if (at - 1) % RECORD == 0 then
      local other = unpack_('<I', bucket, at + NAME)
      if other == number or other == 0 or number == 0 then return true end
    end
    from = at + 1
  end
end

-- Whether the event has been counted already; from now on it has.
-- `number` is that of the user's history, 0 for a session without a user.
local function is_repeated(item, time, millisecond, code, hash, number)
  local mixed = ((item * 40503 + time) % 2 ^ 32 * 1009 + millisecond * 256 + code) % 2 ^ 32
  local at = (mixed + hash) % buckets * BUCKET
  local bucket = call('GETRANGE', key, at, at + BUCKET - 1)
  local record = pack('<I6II', hash, mixed, number)
  if is_among(bucket, sub(record, 1, NAME), number) then return true end
  if #bucket < BUCKET then
    -- The first of all, or the first since the table is to be larger.
    local held = call('GET', key) or ''
    call('SET', key, held .. rep('\0', buckets * BUCKET - #held))
    bucket = rep('\0', BUCKET)
  end
  call('SETRANGE', key, at, record .. sub(bucket, 1, -RECORD - 1))
  return false
end

return {is_repeated = is_repeated}
