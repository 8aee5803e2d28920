-- Which items have a term of their text: see models/state/catalogue/metadata.py, which has the layouts.
--
-- Takes the group's prefix, "{group}:". Only terms of items are stored before `write`. What is stored
-- depends on the items' terms and events, not on the order in which they came, but where a term has
-- more items than its list holds.

local prefix = ...

local TERMS_KEY = prefix .. 'terms'

-- By term, its change of the number of items, and new entries by index; false for one that leaves.
local changes, is_changed, is_put = {}, false, false

local function change(term, index, entry, more)
  local changed = changes[term]
  if not changed then
    changed = {more = 0, entries = {}}
    changes[term] = changed
  end
  changed.more = changed.more + more
  changed.entries[index] = entry
  is_changed = true
end

local function newest_first(a, b) return a % TERM_COUNT_UNIT > b % TERM_COUNT_UNIT end

local function each_term(terms, with)
  for at = 1, #terms, 4 do with(unpack_('<I', terms, at)) end
end

local function entry_of(index, terms, is_warm)
  return index + (#terms / 4) * TERM_COUNT_UNIT + (is_warm and TERM_WARM or 0)
end

-- Stores an item's terms in place of those that it had; an item with n events.
local function put(index, terms, n_events)
  local before = call('HGET', TERMS_KEY, index) or ''
  if before == terms then return end
  is_put = true
  each_term(before, function(term) change(term, index, false, -1) end)
  local entry = entry_of(index, terms, n_events >= COLD_EVENTS)
  each_term(terms, function(term) change(term, index, entry, 1) end)
  if terms == '' then call('HDEL', TERMS_KEY, index) else call('HSET', TERMS_KEY, index, terms) end
end

-- Notes that an item has `COLD_EVENTS` events now.
local function warm(index)
  local terms = call('HGET', TERMS_KEY, index)
  if not terms then return end
  local entry = entry_of(index, terms, true)
  each_term(terms, function(term) change(term, index, entry, 0) end)
end

-- The list of a term after cold items joined it that are newer than all in it and fit; or nil. New
-- items mostly do, and reading long lists to the end costs several times as much.
local function joined_list(raw, changed)
  local joining, oldest = {}, math.huge
  for index, entry in pairs(changed.entries) do
    if not entry or entry >= TERM_WARM then return nil end
    joining[#joining + 1] = entry
    oldest = min(oldest, index)
  end
  local held = raw and #raw / 4 - 1 or 0
  -- As many more items as entries: none of them is in the list.
  if changed.more ~= #joining or held + #joining > TERM_COLD_ITEMS then return nil end
  if held > 0 and unpack_('<I', raw, 5) % TERM_COUNT_UNIT > oldest then return nil end
  table.sort(joining, newest_first)
  local n = changed.more + (raw and unpack_('<I', raw) or 0)
  return pack('<' .. rep('I', #joining + 1), n, unpack(joining)) .. (raw and sub(raw, 5) or '')
end

-- The list of a term after a change: the number of its items, then entries of the newest of them, cold
-- ones first; nil without items.
local function changed_list(raw, changed)
  local n, cold, warm_ones = changed.more, {}, {}
  local function keep(entry)
    local kind = entry >= TERM_WARM and warm_ones or cold
    kind[#kind + 1] = entry
  end
  if raw then
    n = n + unpack_('<I', raw)
    for at = 5, #raw, 4 do
      local entry = unpack_('<I', raw, at)
      if changed.entries[entry % TERM_COUNT_UNIT] == nil then keep(entry) end
    end
  end
  for _, entry in pairs(changed.entries) do
    if entry then keep(entry) end
  end
  if n <= 0 then return nil end
  local parts = {pack('<I', n)}
  for _, kind in ipairs({cold, warm_ones}) do
    table.sort(kind, newest_first)
    local most = kind == cold and TERM_COLD_ITEMS or TERM_WARM_ITEMS
    for at = 1, min(#kind, most) do parts[#parts + 1] = pack('<I', kind[at]) end
  end
  return table.concat(parts)
end

local function write()
  if not is_changed then return end
  local terms, keys = {}, {}
  for term in pairs(changes) do
    terms[#terms + 1] = term
    keys[#keys + 1] = prefix .. 'term:' .. string.format('%.0f', term)
  end
  for from = 1, #terms, MAX_ARGUMENTS do
    local to = min(from + MAX_ARGUMENTS - 1, #terms)
    local raws = call('MGET', unpack(keys, from, to))
    for at = from, to do
      local raw, changed = raws[at - from + 1], changes[terms[at]]
      local list = joined_list(raw, changed) or changed_list(raw, changed)
      if list then call('SET', keys[at], list) else call('DEL', keys[at]) end
    end
  end
  if is_put then call('HINCRBY', prefix .. 'counts', 'term_updates', 1) end
end

return {put = put, warm = warm, write = write}
