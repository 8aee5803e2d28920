-- A group's items: indexes, counts, popularities, top lists and lists of categories.
--
-- Takes the group's prefix, "{group}:", and the step's counts. Only new items are stored before
-- `write`.

local prefix, counts = ...
local terms = opened_late(open_terms, prefix)

-- Indexes ------------------------------------------------------------------------------------------

local indexes, n_items = {}, nil

-- Index of a known item, or false.
local function known_item(name)
  local index = indexes[name]
  if index == nil then
    index = tonumber(call('HGET', prefix .. 'items', name) or nil) or false
    indexes[name] = index
  end
  return index
end

local function new_item(name)
  local index = store_item(prefix, name)
  indexes[name] = index
  n_items = n_items + 1
  counts.items = counts.items + 1
  return index
end

-- Whether `new` may be called.
local function has_room()
  n_items = n_items or call('HLEN', prefix .. 'items')
  return n_items < limits.items
end

-- Numbers, from 0, of the message's events whose new items would exceed the limit; an erased event
-- does not count.
local function refused_events(events, erased)
  local refused, new, room = {}, {}, nil
  for number, event in ipairs(events) do
    local name = event[ITEM_ID]
    if name ~= '' and not erased[number] and not known_item(name) and not new[name] then
      n_items = n_items or call('HLEN', prefix .. 'items')
      room = room or limits.items - n_items
      if room > 0 then
        room = room - 1
        new[name] = true
      else
        refused[#refused + 1] = number - 1
      end
    end
  end
  return refused
end

-- Counts and popularities --------------------------------------------------------------------------

local N_EVENTS, N_PURCHASES, FIRST, LAST, HOUR, DAY, WEEK, MONTH = 1, 2, 3, 4, 5, 6, 7, 8

local stats, touched = {}, {}

local function stat_of(index)
  local stat = stats[index]
  if stat then return stat end
  local key = prefix .. 'stats:' .. floor(index / STATS_PER_PAGE)
  local at = (index % STATS_PER_PAGE) * STAT_BYTES
  local raw = call('GETRANGE', key, at, at + STAT_BYTES - 1)
  if #raw < STAT_BYTES then
    if #raw == 0 and call('EXISTS', key) == 0 then
      call('SET', key, rep('\0', STATS_PER_PAGE * STAT_BYTES))
    end
    raw = rep('\0', STAT_BYTES)
  end
  local n, purchases, first, last, hour, day, week, month = unpack_('<IIIIdddd', raw)
  if n == 0 then hour, day, week, month = NONE, NONE, NONE, NONE end
  stat = {n, purchases, first, last, hour, day, week, month, key = key, at = at, last_before = last}
  stats[index] = stat
  touched[#touched + 1] = index
  return stat
end

local function count_item(index, time, weight, is_purchase)
  local stat = stat_of(index)
  if stat[N_EVENTS] == 0 then stat[FIRST] = time end
  stat[N_EVENTS] = stat[N_EVENTS] + 1
  if stat[N_EVENTS] == COLD_EVENTS then terms.warm(index) end
  if is_purchase then stat[N_PURCHASES] = stat[N_PURCHASES] + 1 end
  stat.is_earlier = stat.is_earlier or time < stat[FIRST]
  stat[FIRST], stat[LAST] = min(stat[FIRST], time), max(stat[LAST], time)
  for field = HOUR, MONTH do
    local rate = POPULARITY_RATES[field - HOUR + 1]
    stat[field] = add_log2(stat[field], weight + (time - EPOCH) * rate)
  end
end

-- Takes back what `count_item` counted. Times of the first and last event are known only as long as no
-- event is taken back that was one of them: they stay.
local function take_back_item(index, time, weight, is_purchase)
  local stat = stat_of(index)
  stat[N_EVENTS] = max(stat[N_EVENTS] - 1, 0)
  if is_purchase then stat[N_PURCHASES] = max(stat[N_PURCHASES] - 1, 0) end
  for field = HOUR, MONTH do
    local rate = POPULARITY_RATES[field - HOUR + 1]
    stat[field] = subtract_log2(stat[field], weight + (time - EPOCH) * rate)
  end
  if stat[N_EVENTS] == 0 then
    for field = N_PURCHASES, LAST do stat[field] = 0 end
    for field = HOUR, MONTH do stat[field] = NONE end
  end
  stat.is_lower = true
end

local TOP_LISTS = {
  {'all', N_EVENTS}, {'recent', LAST}, {'hour', HOUR}, {'day', DAY}, {'week', WEEK}, {'month', MONTH},
  {'new', FIRST},
}

local function write_top_list(name, field)
  local key, least = prefix .. 'top:' .. name, NONE
  local n = call('ZCARD', key)
  if n >= limits.tops then least = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) end
  local scores = {}
  for _, index in ipairs(touched) do
    local score = stats[index][field]
    if stats[index][N_EVENTS] == 0 then
      n = n - call('ZREM', key, index)
    elseif score >= least then
      scores[#scores + 1] = string.format('%.17g', score)
      scores[#scores + 1] = index
    elseif stats[index].is_lower or name == 'new' and stats[index].is_earlier then
      n = n - call('ZREM', key, index) -- no other score falls
    end
  end
  for from = 1, #scores, MAX_ARGUMENTS do
    n = n + call('ZADD', key, unpack(scores, from, min(from + MAX_ARGUMENTS - 1, #scores)))
  end
  if n > limits.tops then call('ZREMRANGEBYRANK', key, 0, n - limits.tops - 1) end
end

local function write_stats()
  for _, index in ipairs(touched) do
    local stat = stats[index]
    local packed = stat[N_EVENTS] > 0 and pack('<IIIIdddd', unpack(stat, 1, MONTH))
    call('SETRANGE', stat.key, stat.at, packed or rep('\0', STAT_BYTES))
  end
  for _, top in ipairs(TOP_LISTS) do write_top_list(top[1], top[2]) end
end

-- Moves items up in the lists of their categories, which are ordered by the minute of the last event;
-- see apply_metadata.lua.
local function write_categories()
  local key = prefix .. 'categories'
  if call('EXISTS', key) == 0 then return end
  local lists = {}
  for _, index in ipairs(touched) do
    local stat = stats[index]
    local minute = stat[LAST] - stat[LAST] % MINUTE_S
    local raw = minute > stat.last_before and call('HGET', key, index)
    for _, name in ipairs(raw and cmsgpack.unpack(raw) or {}) do
      local list = lists[name] or {}
      lists[name] = list
      list[#list + 1] = minute
      list[#list + 1] = index
    end
  end
  for name, list in pairs(lists) do
    local category = prefix .. 'category:' .. name
    for from = 1, #list, MAX_ARGUMENTS do
      call('ZADD', category, 'GT', unpack(list, from, min(from + MAX_ARGUMENTS - 1, #list)))
    end
    trim_sorted_set(category, limits.tops)
  end
end

local function write()
  if #touched == 0 then return end
  write_stats()
  write_categories()
  write_if_opened(terms)
end

return {
  known = known_item, new = new_item, has_room = has_room, refused_events = refused_events,
  count = count_item, take_back = take_back_item,
  write = write,
}
