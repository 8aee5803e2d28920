-- Deltas of other shards as the messages of a partition: those of each message are applied once.
--
-- Comes behind prelude.lua. A message is {offset, number of the argument with its packed
-- runs, time in ms, checksum}; shard_outbox.lua has
-- the runs. A run without a source asks for indexes of names, which changes nothing when it comes again.
-- One that is not to be read changes nothing either.

-- Offset of the last deltas that were applied of each source; how many runs were left.
local source_marks, n_gaps = {}, 0

local function source_mark(source)
  local mark = source_marks[source]
  if not mark then
    mark = read_mark(request.prefix .. 'sources', source)
    source_marks[source] = mark
  end
  return mark
end

-- Applies the deltas of a run that are new, each by `apply`. One that misses some before it is left: the
-- outbox has it until it is applied, and sends it again behind those.
local function apply_run(source, previous, messages, needs, apply)
  local mark, misses = source ~= '' and source_mark(source) or -1, false
  for other, offset in pairs(needs or {}) do misses = misses or source_mark(other) < offset end
  if mark < previous or misses then
    n_gaps = n_gaps + 1
    return
  end
  for _, message in ipairs(messages) do
    if message[1] > mark then
      for _, delta in ipairs(message[2]) do apply(delta) end
      mark = message[1]
    end
  end
  if source ~= '' then source_marks[source] = mark end
end

-- Applies the messages of one partition of deltas, as `apply_part` those of events.
local function apply_deltas_part(part, begin, apply)
  local messages = {}
  for number, raw in ipairs(part[PART_MESSAGES]) do
    local is_readable, runs = pcall(cmsgpack.unpack, ARGV[raw[2]])
    messages[number] = {
      [OFFSET] = raw[1], [EVENTS] = is_readable and runs or {}, [TIMESTAMP_MS] = raw[3], [CHECKSUM] = raw[4],
    }
  end
  local renamed = {
    [PART_FIELD] = part[PART_FIELD], [PART_EXPECTED] = part[PART_EXPECTED],
    [PART_MESSAGES] = messages, [PART_CHECKSUM] = part[PART_CHECKSUM],
  }
  return apply_part(renamed, function(field, message)
    begin(field, message[OFFSET])
    for _, run in ipairs(message[EVENTS]) do apply_run(run[1], run[2], run[3], run[4], apply) end
  end)
end

local function write_sources()
  write_marks(request.prefix .. 'sources', source_marks)
end
