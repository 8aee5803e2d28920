-- Whether the store is where a worker left it in a partition: at the watermark that it expects, of a
-- message with the checksum that it knows (-1: none). An earlier state of the store may be as far, but
-- of messages in whose place Kafka has others now.
local function is_where_left(prefix, field, mark, expected, checksum)
  if mark ~= expected then return false end
  local raw = checksum >= 0 and redis.call('HGET', prefix .. 'witnesses', field)
  if not raw then return true end
  local offset, _, known = struct.unpack('<ddd', raw)
  return offset ~= mark or known == checksum
end
