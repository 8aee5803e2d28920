-- What the scripts that apply Kafka messages share: the request, marks of partitions, bounded sets.
--
-- Comes behind constants that models/state/scripts/lua_source.py writes out of models/state/layout.py (sizes
-- of records, decay rates) and of the request's NamedTuples (position of each field). Keys and
-- layouts: models/state/store.py, models/state/layout.py.

local call, find, sub, rep = redis.call, string.find, string.sub, string.rep
local pack, unpack_ = struct.pack, struct.unpack
local floor, log, max, min = math.floor, math.log, math.max, math.min

local LN2 = log(2)
-- Logarithm of an empty sum.
local NONE = -1e30
-- Knuth's multiplicative hash for 16 bits: 2^16 times the golden ratio's fraction, made odd.
local HASH_FACTOR = 40503
-- Arguments of one command, at most: `unpack` puts them on Lua's stack, which holds 8000.
local MAX_ARGUMENTS = 1000

local request = cmsgpack.unpack(ARGV[1])
local limits = request.limits

-- What leaves a session shard for other shards (shard_outbox.lua); nil where a group has one shard.
local outbox

-- The n-th number of a shard, where numbers of all shards differ: each has whole pages of them, and so
-- a number says by its page which shard gave it.
local function own_number(n, per_page)
  if not request.shards then return n end
  return (floor(n / per_page) * request.shards + request.shard) * per_page + n % per_page
end

-- log2(2^a + 2^b); where one is less than 2^-40 of the other, it does not count.
local function add_log2(a, b)
  local d = b - a
  if d > 0 then a, d = b, -d end
  if d < -40 then return a end
  return a + log(1 + 2 ^ d) / LN2
end

-- log2(2^a - 2^b); none where nothing is left but what rounding leaves.
local function subtract_log2(a, b)
  local left = 1 - 2 ^ (b - a)
  if left < 1e-9 then return NONE end
  return a + log(left) / LN2
end

-- Position of the record that starts with `id` in a string of records of `size` bytes, plus `shift`
-- where the id stands that far inside the record.
local function locate(blob, id, size, shift)
  local from = 1 + shift
  while true do
    local at = find(blob, id, from, true)
    if not at then return nil end
    local over = (at - 1 - shift) % size
    if over == 0 then return at - shift end
    from = at - over + size
  end
end

-- Dataset groups ---------------------------------------------------------------------------------

-- "{group}:" of a group by its name, "" for that of the settings; nil where the group does not exist.
local function prefix_of(name)
  if name == '' then return request.prefix end
  return call('SISMEMBER', KEYS[2], name) == 1 and '{' .. name .. '}:' or nil
end

-- Notes the format of a group's state before its first event.
local function begin_state(prefix)
  if call('HEXISTS', prefix .. 'counts', 'events') == 0 then
    call('HSET', prefix .. 'counts', 'format', STATE_FORMAT)
  end
end

-- Index of a new item.
local function store_item(prefix, name)
  local index = own_number(call('HINCRBY', prefix .. 'counts', 'item_index', 1), STATS_PER_PAGE)
  call('HSET', prefix .. 'items', name, index)
  call('HSET', prefix .. 'ids', index, name)
  return index
end

-- Removes the members with the lowest scores beyond `limit`.
local function trim_sorted_set(key, limit)
  local excess = call('ZCARD', key) - limit
  if excess > 0 then call('ZREMRANGEBYRANK', key, 0, excess - 1) end
end

-- Functions of a file, as `open` gives them, made when one of them is called for the first time: what
-- a step does not need costs it nothing.
local function opened_late(open, ...)
  local arguments = {...}
  return setmetatable({}, {__index = function(self, name)
    setmetatable(self, nil)
    for each, one in pairs(open(unpack(arguments))) do self[each] = one end
    return self[name]
  end})
end

local function is_opened(functions) return getmetatable(functions) == nil end

local function write_if_opened(functions)
  if is_opened(functions) then functions.write() end
end

-- Watermarks -------------------------------------------------------------------------------------

local function read_mark(key, field)
  return tonumber(call('HGET', key, field) or nil) or -1
end

local function write_marks(key, marks)
  for field, mark in pairs(marks) do call('HSET', key, field, string.format('%.0f', mark)) end
end

-- Whether the store is where a worker left it in a partition: at the watermark that it expects, of a
-- message with the checksum that it knows (-1: none). An earlier state of the store may be as far, but
-- of messages in whose place Kafka has others now. One of many shards may be further, where a step did not
-- reach all of them; it skips what it has.
local function is_where_left(field, mark, expected, checksum)
  if mark ~= expected then return request.shards ~= nil and mark > expected end
  local raw = checksum >= 0 and call('HGET', request.prefix .. 'witnesses', field)
  if not raw then return true end
  local offset, _, known = unpack_('<ddd', raw)
  return offset ~= mark or known == checksum
end

-- New watermark of each partition field, and the message at it.
local marks, witnesses = {}, {}

-- Applies the messages of one partition behind its watermark, in order, until `apply` refuses one
-- with a status and the numbers of its refused events. Without a field no watermark is kept.
--
-- Returns {status, watermark, offset of the refused message or -1, refused event numbers}.
local function apply_part(part, apply)
  local field, messages = part[PART_FIELD], part[PART_MESSAGES]
  local before = field ~= '' and read_mark(KEYS[1], field) or -1
  if not is_where_left(field, before, part[PART_EXPECTED], part[PART_CHECKSUM]) then
    return {'lost', before, -1, {}}
  end
  local watermark = before
  for _, message in ipairs(messages) do
    if message[OFFSET] > watermark then
      local status, refused = apply(field, message)
      if status then return {status, watermark, message[OFFSET], refused or {}} end
      watermark = message[OFFSET]
      if field ~= '' then marks[field], witnesses[field] = watermark, message end
    end
  end
  return {'applied', watermark, -1, {}}
end

local function write_watermarks()
  write_marks(KEYS[1], marks)
  for field, message in pairs(witnesses) do
    call('HSET', request.prefix .. 'witnesses', field,
      pack('<ddd', message[OFFSET], message[TIMESTAMP_MS], message[CHECKSUM]))
  end
end
