-- Counts of served lists and their outcomes in one group, by hour and by day.
--
-- Takes the group's prefix, "{group}:". `add` adds to answers (1), impressions (2), clicks (3), conversions
-- (4) or value (5) of a list's dimensions; with a position also to those of the source at that position, of
-- which readers add up those of a source, and of a position.
-- Nothing is stored before `write`.

local prefix = ...

local sums = {} -- by hour, then by field
local field_names = {} -- by dimensions: to make the same text again would cost more than to count

local function fields_of(dimensions)
  local fields = field_names[dimensions]
  if not fields then
    fields = {all = dimensions .. '\t', by_place = {}}
    field_names[dimensions] = fields
  end
  return fields
end

local function add_sum(of_hour, field, at, delta)
  local sum = of_hour[field]
  if not sum then
    sum = {0, 0, 0, 0, 0}
    of_hour[field] = sum
  end
  sum[at] = sum[at] + delta
end

local function add(served_ms, dimensions, source, position, at, delta)
  if delta == 0 then return end
  local hour = floor(served_ms / 3600000)
  local of_hour, fields = sums[hour], fields_of(dimensions)
  if not of_hour then
    of_hour = {}
    sums[hour] = of_hour
  end
  add_sum(of_hour, fields.all, at, delta)
  if not position then return end
  if source == '' then source = '-' end
  local place = source .. min(position, MAX_POSITIONS + 1)
  local by_place = fields.by_place[place]
  if not by_place then
    by_place = dimensions .. '\ti' .. place
    fields.by_place[place] = by_place
  end
  add_sum(of_hour, by_place, at, delta)
end

local function write_fields(key, ends, fields)
  local names, values = {}, {}
  for field in pairs(fields) do names[#names + 1] = field end
  local room = OUTCOME_FIELDS - call('HLEN', key)
  for from = 1, #names, MAX_ARGUMENTS do
    local some = {unpack(names, from, min(from + MAX_ARGUMENTS - 1, #names))}
    for n, stored in ipairs(call('HMGET', key, unpack(some))) do
      local sum = fields[some[n]]
      if stored then
        for at, value in ipairs({unpack_('<ddddd', stored)}) do
          if at <= 5 then sum[at] = sum[at] + value end
        end
      else
        room = room - 1
      end
      if stored or room >= 0 then
        values[#values + 1] = some[n]
        values[#values + 1] = pack('<ddddd', unpack(sum))
      end
    end
  end
  for from = 1, #values, MAX_ARGUMENTS do
    call('HSET', key, unpack(values, from, min(from + MAX_ARGUMENTS - 1, #values)))
  end
  -- A list of long ago that comes again leaves nothing behind: no time left deletes the key.
  call('EXPIRE', key, string.format('%.0f', max(0, floor(ends - request.now))))
end

local function write()
  local days = {}
  for hour, fields in pairs(sums) do
    local day = floor(hour / 24)
    local of_day = days[day] or {}
    days[day] = of_day
    for field, sum in pairs(fields) do
      for at, value in ipairs(sum) do
        if value ~= 0 then add_sum(of_day, field, at, value) end
      end
    end
  end
  for hour, fields in pairs(sums) do
    write_fields(prefix .. 'outcomes:h' .. hour, (hour + 1) * 3600 + limits.outcome_hours, fields)
  end
  for day, fields in pairs(days) do
    write_fields(prefix .. 'outcomes:d' .. day, (day + 1) * 86400 + limits.outcome_days, fields)
  end
end

return {add = add, write = write}
