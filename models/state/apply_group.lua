-- What events change in one dataset group: the only place where state is written on their behalf.
-- The body of a function that apply_batch.lua calls, once a step for each group that has events in it.
--
-- Comes behind `local function open_circumstances(...)` and `open_recent(...)`, whose bodies are
-- context_counts.lua and recent_ids.lua.
--
-- Takes the group's prefix, "{group}:", and of the request of apply_batch.lua
--   now      seconds; for expiry and freshness only, event times come with the events
--   epoch    seconds; decay counts time from here, which keeps the logarithms small
--   limits   history, forgotten, recent, window, neighbours, takers, tops, items, types, counted,
--            values, user_sessions, tombstones; session_ttl, user_ttl, tombstone_ttl (seconds)
--   fade     fade[d] = log2 of a pair's weight at distance d
--   rates    half-lives a second of the pair channels, then of the popularities
--
-- Returns functions, and the counts of what took effect. Nothing but new items and links is written
-- before `write`.
--
-- Numbers that decay are kept as logarithms of forward-decayed sums (Cormode et al. 2009, "Forward
-- decay"): log2(sum of weight * 2^(time / half-life)). They never need rescaling, and two of them
-- compare the same way at any later time. Layouts: models/state/layout.py.

local prefix, request = ...
local now, limits = request.now, request.limits
local fade, rates = request.fade, request.rates
local call, find, sub, rep = redis.call, string.find, string.sub, string.rep
local pack, unpack_ = struct.pack, struct.unpack
local floor, log, max, min = math.floor, math.log, math.max, math.min
local LN2 = log(2)
local NONE = -1e30
local EPOCH = request.epoch

local PAIR, STAT, ENTRY, ID, HEAD, PAGE, OWNERS, MINUTE = 24, 48, 15, 6, 16, 64, 128, 60
local FIRST_SESSION = 2 ^ 31
local EMPTY_PAIR = rep('\0', PAIR)

local counts = {events = 0, purchases = 0, duplicates = 0, items = 0, users = 0, sessions = 0, erased = 0}
local clock, accepted = 0, 0
local recent = open_recent(prefix, request)

-- log2(2^a + 2^b)
local function add(a, b)
  local d = b - a
  if d > 0 then a, d = b, -d end
  if d < -40 then return a end
  return a + log(1 + 2 ^ d) / LN2
end

-- Position of the record that starts with `id` in a string of records of `size` bytes.
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

-- Items ------------------------------------------------------------------------------------

local item_indexes, item_total = {}, nil

local function known_item(name)
  local index = item_indexes[name]
  if index == nil then
    index = tonumber(call('HGET', prefix .. 'items', name) or nil) or false
    item_indexes[name] = index
  end
  return index
end

local function new_item(name)
  local index = call('HINCRBY', prefix .. 'counts', 'item_index', 1)
  call('HSET', prefix .. 'items', name, index)
  call('HSET', prefix .. 'ids', index, name)
  item_indexes[name] = index
  item_total = item_total + 1
  counts.items = counts.items + 1
  return index
end

-- Numbers of the message's events whose items would go beyond the limit; of the erased ones none does.
local function refused_events(events, erased)
  local refused, fresh = {}, {}
  item_total = item_total or call('HLEN', prefix .. 'items')
  local room = limits.items - item_total
  for number, event in ipairs(events) do
    local name = event[1]
    if name ~= '' and not erased[number] and not known_item(name) and not fresh[name] then
      if room > 0 then
        room = room - 1
        fresh[name] = true
      else
        refused[#refused + 1] = number - 1
      end
    end
  end
  return refused
end

-- Counts and popularities of items, written back at the end of the call ---------------------

local stats, touched = {}, {}

local function stat_of(index)
  local stat = stats[index]
  if stat then return stat end
  local key, at = prefix .. 'stats:' .. floor(index / PAGE), (index % PAGE) * STAT
  local raw = call('GETRANGE', key, at, at + STAT - 1)
  if #raw < STAT then
    if #raw == 0 and call('EXISTS', key) == 0 then call('SET', key, rep('\0', PAGE * STAT)) end
    raw = rep('\0', STAT)
  end
  local n, purchases, first, last, hour, day, week, month = unpack_('<IIIIdddd', raw)
  if n == 0 then hour, day, week, month = NONE, NONE, NONE, NONE end
  stat = {n, purchases, first, last, hour, day, week, month, key = key, at = at, seen = last}
  stats[index] = stat
  touched[#touched + 1] = index
  return stat
end

local function count_item(index, time, weight, purchase)
  local stat = stat_of(index)
  if stat[1] == 0 then stat[3] = time end
  stat[1] = stat[1] + 1
  if purchase then stat[2] = stat[2] + 1 end
  stat.earlier = stat.earlier or time < stat[3]
  stat[3], stat[4] = min(stat[3], time), max(stat[4], time)
  for channel = 1, 4 do
    stat[4 + channel] = add(stat[4 + channel], weight + (time - EPOCH) * rates[5 + channel])
  end
end

local TOPS = {{'all', 1}, {'recent', 4}, {'hour', 5}, {'day', 6}, {'week', 7}, {'month', 8}, {'new', 3}}

local function write_stats()
  for _, index in ipairs(touched) do
    local stat = stats[index]
    call('SETRANGE', stat.key, stat.at, pack('<IIIIdddd', stat[1], stat[2], stat[3], stat[4],
      stat[5], stat[6], stat[7], stat[8]))
  end
  for _, top in ipairs(TOPS) do
    local key, column, floor_score = prefix .. 'top:' .. top[1], top[2], NONE
    local excess = call('ZCARD', key) - limits.tops
    if excess >= 0 then floor_score = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) end
    local scores = {}
    for _, index in ipairs(touched) do
      local score = stats[index][column]
      if score >= floor_score then
        scores[#scores + 1] = string.format('%.17g', score)
        scores[#scores + 1] = index
      elseif top[1] == 'new' and stats[index].earlier then
        call('ZREM', key, index) -- the only score that falls
      end
    end
    for from = 1, #scores, 1000 do
      call('ZADD', key, unpack(scores, from, min(from + 999, #scores)))
    end
    excess = call('ZCARD', key) - limits.tops
    if excess > 0 then call('ZREMRANGEBYRANK', key, 0, excess - 1) end
  end
end

-- Moves items up in the lists of their categories, which are in order of minutes; see apply_metadata.lua.
local function write_categories()
  local key = prefix .. 'categories'
  if call('EXISTS', key) == 0 then return end
  local lists = {}
  for _, index in ipairs(touched) do
    local stat = stats[index]
    local minute = stat[4] - stat[4] % MINUTE
    local raw = minute > stat.seen and call('HGET', key, index)
    for _, name in ipairs(raw and cmsgpack.unpack(raw) or {}) do
      local list = lists[name] or {}
      lists[name] = list
      list[#list + 1] = minute
      list[#list + 1] = index
    end
  end
  for name, list in pairs(lists) do
    local listed = prefix .. 'category:' .. name
    for from = 1, #list, 1000 do
      call('ZADD', listed, 'GT', unpack(list, from, min(from + 999, #list)))
    end
    local excess = call('ZCARD', listed) - limits.tops
    if excess > 0 then call('ZREMRANGEBYRANK', listed, 0, excess - 1) end
  end
end

-- Pairs, written back at the end of the call ---------------------------------------------------

local lists, list_keys = {}, {}

local function list_of(item)
  local list = lists[item]
  if list then return list end
  local key = prefix .. 'pairs:' .. item
  local blob = call('GET', key) or ''
  local zeros = find(blob, EMPTY_PAIR, 1, true)
  -- Zeros may begin inside the last record, never before it: an item's index is not 0.
  local used = zeros and floor((zeros + PAIR - 2) / PAIR) or #blob / PAIR
  list = {key = key, blob = blob, used = used, stored = used, records = {}, at = {}}
  lists[item] = list
  list_keys[#list_keys + 1] = item
  return list
end

-- A record in hand: item, five logarithms, slot, whether it changed.

-- The slot of the weakest of eight records that lie together. Where they lie depends on the data
-- alone, so that a replay evicts the same; a list is never sorted.
local function evicted_slot(list, with, age)
  local at, blob = list.at, list.blob
  local from, weakest, least = (with * 40503 + age) % limits.neighbours, nil, nil
  for step = 0, 7 do
    local slot = (from + step) % limits.neighbours
    local record = at[slot]
    local month = record and record[6] or unpack_('<f', blob, slot * PAIR + 21)
    if not least or month < least then weakest, least = slot, month end
  end
  if at[weakest] then list.records[at[weakest][1]] = nil end
  return weakest
end

local function record_of(list, with, age)
  local record = list.records[with]
  if record then return record end
  local at = list.stored > 0 and locate(list.blob, pack('<I', with), PAIR, 0)
  local slot = at and (at - 1) / PAIR
  if slot and not list.at[slot] then
    local _, following, after, before, day, month = unpack_('<Ifffff', list.blob, at)
    record = {with, following, after, before, day, month, slot, false}
  else
    if list.used < limits.neighbours then
      slot = list.used
      list.used = slot + 1
    else
      slot = evicted_slot(list, with, age)
    end
    record = {with, NONE, NONE, NONE, NONE, NONE, slot, false}
  end
  list.at[slot] = record
  list.records[with] = record
  return record
end

-- Item `with` was seen after the list's item, or before it; `age` is in seconds since EPOCH.
local function count_pair(list, with, weight, age, distance, forward)
  local record = record_of(list, with, age)
  if forward then
    if distance == 1 then record[2] = add(record[2], weight + age * rates[1]) end
    record[3] = add(record[3], weight + age * rates[2])
  else
    record[4] = add(record[4], weight + age * rates[3])
    weight = weight - 1
  end
  record[5] = add(record[5], weight + age * rates[4])
  record[6] = add(record[6], weight + age * rates[5])
  record[8] = true
end

local function count_pairs(item, window, weight, age)
  local own = list_of(item)
  for distance, other in ipairs(window) do
    local faded = weight + fade[distance]
    count_pair(list_of(other), item, faded, age, distance, true)
    count_pair(own, other, faded, age, distance, false)
  end
end

local function packed(record)
  return pack('<Ifffff', record[1], record[2], record[3], record[4], record[5], record[6])
end

local function write_list(list)
  local stored, room = list.stored, #list.blob / PAIR
  local added = {}
  for slot = stored, list.used - 1 do added[#added + 1] = packed(list.at[slot]) end
  if list.used > room then
    room = max(list.used, min(limits.neighbours, 2 * room, list.used + 16))
    local padding = rep(EMPTY_PAIR, room - list.used)
    call('SET', list.key, sub(list.blob, 1, stored * PAIR) .. table.concat(added) .. padding)
  elseif #added > 0 then
    call('SETRANGE', list.key, stored * PAIR, table.concat(added))
  end
  for slot, record in pairs(list.at) do
    if slot < stored and record[8] then call('SETRANGE', list.key, slot * PAIR, packed(record)) end
  end
end

local function write_lists()
  for _, item in ipairs(list_keys) do write_list(lists[item]) end
end

-- Owners of items, written back at the end of the call ------------------------------------------

local takers = {}

-- The owner's first event on the item, of those it still has.
local function remember_owner(item, number)
  local added = takers[item] or {}
  takers[item] = added
  added[#added + 1] = pack('<I', number)
end

-- The newest stand last; there are at most twice as many as are wanted.
local function write_takers()
  local wanted = 4 * limits.takers
  for item, added in pairs(takers) do
    local key = prefix .. 'takers:' .. item
    if call('APPEND', key, table.concat(added)) > 2 * wanted then
      call('SET', key, call('GETRANGE', key, -wanted, -1))
    end
  end
end

-- Histories, written back at the end of the call ---------------------------------------------

local histories, links = {}, {}

-- The history of an owner: "u:<user>", or "s:<session>" of a session without a user.
local function history_of(owner, ttl)
  local history = histories[owner]
  if history then return history end
  local raw = call('GET', prefix .. 'history:' .. owner)
  if raw then
    local count, number, last = unpack_('<IId', raw)
    history = {count = count, number = number, accepted = last, entries = sub(raw, HEAD + 1)}
  else
    history = {count = 0, number = 0, accepted = 0, entries = '', fresh = true}
  end
  history.ttl, history.owner = ttl, owner
  histories[owner] = history
  return history
end

-- The ids of events that came and are kept no longer, the last of them. Only one that outgrew its
-- limit has any: what is late is trimmed at once, and would count again each time it came.
local function forgotten_ids(history)
  if not history.forgotten then
    local is_trimmed = history.count * ENTRY > #history.entries
    history.forgotten = is_trimmed and call('GET', prefix .. 'forgotten:' .. history.owner) or ''
  end
  return history.forgotten
end

-- Ids in hand that follow those, each with its place; written back at the end of the call.
local function forget(history, id)
  forgotten_ids(history) -- as they were before
  local forgot = history.forgot or {}
  history.forgot = forgot
  forgot[#forgot + 1] = id
  forgot[id] = #forgot
end

local function all_forgotten(history)
  local ids = forgotten_ids(history)
  if history.forgot then ids = ids .. table.concat(history.forgot) end
  return sub(ids, -limits.forgotten * ID)
end

-- Whether it is among the last of both: how a stream is cut into steps makes no difference.
local function is_forgotten(history, id)
  local ids, forgot = forgotten_ids(history), history.forgot
  local n_forgot, place = forgot and #forgot or 0, forgot and forgot[id]
  if place then return n_forgot - place < limits.forgotten end
  local at = #ids > 0 and locate(ids, id, ID, 0)
  return at and (#ids - at + 1) / ID + n_forgot <= limits.forgotten
end

-- Whether the event of this id is among the history's last ones, in whatever order they came.
local function has_event(history, id)
  return locate(history.entries, id, ENTRY, 9) or is_forgotten(history, id)
end

local function owner_page(number)
  return prefix .. 'owners:' .. floor(number / OWNERS), number % OWNERS
end

local function new_number(owner)
  if sub(owner, 1, 2) == 'u:' then return call('HINCRBY', prefix .. 'counts', 'owner_index', 1) end
  -- Pages of their own, which expire with the last of these sessions and not with some user.
  return FIRST_SESSION + call('HINCRBY', prefix .. 'counts', 'session_index', 1)
end

-- The history of an owner, with a number by which items remember it.
local function numbered(owner, ttl)
  local history = history_of(owner, ttl)
  local is_new = history.number == 0
  if is_new then history.number = new_number(owner) end
  -- Each owner keeps its page, twice in its lifetime: it must not expire before the history.
  if is_new or floor(2 * history.accepted / ttl) ~= floor(2 * now / ttl) then
    local page, place = owner_page(history.number)
    call('HSET', page, place, owner)
    call('EXPIRE', page, 2 * ttl)
  end
  return history
end

local function empty_history(owner, ttl)
  return {
    gone = true, fresh = true, owner = owner, ttl = ttl,
    count = 0, number = 0, accepted = 0, entries = '', forgotten = '',
  }
end

local function link(session, shard, generation, user)
  local key = prefix .. 'links:' .. generation .. ':' .. shard
  call('HSET', key, session, user)
  call('EXPIRE', key, 2 * limits.session_ttl)
  links[session] = user
end

-- The user a session belongs to, or false; links live in two generations of sharded hashes, and
-- one that is used in the older moves to the newer.
local function linked_user(session, shard, generation)
  local user = links[session]
  if user == nil then
    user = call('HGET', prefix .. 'links:' .. generation .. ':' .. shard, session)
    if not user then
      user = call('HGET', prefix .. 'links:' .. (generation - 1) .. ':' .. shard, session)
      if user then link(session, shard, generation, user) end
    end
    links[session] = user
  end
  return user
end

-- Puts an entry where its time belongs; gives the position it got.
local function insert(history, entry, time)
  local entries = history.entries
  local at = #entries + 1
  while at > 1 do
    local _, before = unpack_('<II', entries, at - ENTRY)
    if before <= time then break end
    at = at - ENTRY
  end
  if at > #entries then
    history.entries = entries .. entry
  else
    history.entries = sub(entries, 1, at - 1) .. entry .. sub(entries, at)
  end
  return at
end

local function has_item(history, item)
  return locate(history.entries, pack('<I', item), ENTRY, 0) ~= nil
end

local function trim(history)
  local excess = #history.entries - limits.history * ENTRY
  if excess <= 0 then return end
  for at = 1, excess, ENTRY do forget(history, sub(history.entries, at + 9, at + 14)) end
  history.entries = sub(history.entries, excess + 1)
end

-- A session's anonymous events become the user's, as if they came now; none twice.
local function join(session, history)
  local anonymous = history_of(session, limits.session_ttl)
  if anonymous.fresh then return end
  local ids = all_forgotten(anonymous)
  for at = 1, #ids, ID do forget(history, sub(ids, at, at + ID - 1)) end
  history.count = history.count + anonymous.count - #anonymous.entries / ENTRY
  for at = 1, #anonymous.entries, ENTRY do
    local entry = sub(anonymous.entries, at, at + ENTRY - 1)
    if not has_event(history, sub(entry, 10)) then
      local item, time = unpack_('<II', entry)
      if item ~= 0 and not has_item(history, item) then remember_owner(item, history.number) end
      insert(history, entry, time)
      history.count = history.count + 1
    end
  end
  trim(history)
  history.accepted = max(history.accepted, anonymous.accepted)
  call('HDEL', owner_page(anonymous.number))
  histories[session] = empty_history(session, limits.session_ttl)
end

-- Sessions that are linked to a user stand beside the user's name, oldest first, so that all that is
-- the user's can be found from there.

local function sessions_of(history)
  local page, place = owner_page(history.number)
  local raw, found, at = call('HGET', page, place .. 's') or '', {}, 1
  while at <= #raw do
    local shard, size = unpack_('<BH', raw, at)
    found[#found + 1] = {name = sub(raw, at + 3, at + 2 + size), shard = shard}
    at = at + 3 + size
  end
  return found, page, place .. 's'
end

-- Takes the session's link away, if it is the user's.
local function unlink(session, shard, user)
  local generation = floor(now / limits.session_ttl)
  if linked_user(session, shard, generation) ~= user then return false end
  for n = generation - 1, generation do
    call('HDEL', prefix .. 'links:' .. n .. ':' .. shard, session)
  end
  links[session] = false
  return true
end

local function keep_session(history, user, session, shard)
  local found, page, field = sessions_of(history)
  local kept = {}
  for n, one in ipairs(found) do
    if one.name ~= session then
      if #found - n + 1 < limits.user_sessions then
        kept[#kept + 1] = pack('<BH', one.shard, #one.name) .. one.name
      else
        unlink(one.name, one.shard, user)
      end
    end
  end
  call('HSET', page, field, table.concat(kept) .. pack('<BH', shard, #session) .. session)
end

local function owner(user, session, shard)
  local anonymous = 's:' .. session
  local generation = floor(now / limits.session_ttl)
  if user == '' then
    user = linked_user(session, shard, generation)
    if not user then return numbered(anonymous, limits.session_ttl), false end
  end
  local history = numbered('u:' .. user, limits.user_ttl)
  if user ~= session and linked_user(session, shard, generation) ~= user then
    join(anonymous, history)
    link(session, shard, generation, user)
    keep_session(history, user, session, shard)
  end
  return history, true
end

-- Erasures -----------------------------------------------------------------------------------

-- A tombstone says up to when, in milliseconds, everything of an owner has been erased; it names the
-- owner by a digest only. Messages that came before, and are read after, thus bring nobody back.
local tombstones, digests, newest = prefix .. 'erased', {}, nil

local function digest(name)
  return sub(redis.sha1hex(name), 1, 24)
end

local function bury(name, until_ms)
  local key = digest(name)
  call('ZADD', tombstones, 'GT', string.format('%.0f', until_ms), key)
  digests[key], newest = nil, nil
end

local function trim_tombstones()
  call('ZREMRANGEBYSCORE', tombstones, '-inf', string.format('%.0f', (now - limits.tombstone_ttl) * 1000))
  local excess = call('ZCARD', tombstones) - limits.tombstones
  if excess > 0 then call('ZREMRANGEBYRANK', tombstones, 0, excess - 1) end
  call('EXPIRE', tombstones, limits.tombstone_ttl)
end

local function erased_until(name)
  local key = digest(name)
  if digests[key] == nil then digests[key] = tonumber(call('ZSCORE', tombstones, key) or nil) or -1 end
  return digests[key]
end

-- Numbers of the message's events that were sent or accepted before their owner was erased.
local function erased_events(message)
  local erased, accepted_ms = {}, floor(message[5] * 1000)
  newest = newest or tonumber(call('ZRANGE', tombstones, -1, -1, 'WITHSCORES')[2] or nil) or -1
  local bound
  for number, event in ipairs(message[6]) do
    local time_ms = min(event[2] * 1000 + event[8], accepted_ms)
    if time_ms <= newest then
      if not bound and message[2] ~= '' then
        bound = erased_until('u:' .. message[2])
      elseif not bound then
        local session = message[3]
        local user = linked_user(session, message[4], floor(now / limits.session_ttl))
        bound = max(erased_until('s:' .. session), user and erased_until('u:' .. user) or -1)
      end
      if time_ms <= bound then erased[number] = true end
    end
  end
  return erased
end

-- What was sent after the erasure stays, though it may have been applied before.
local function erase_history(owner, ttl, until_ms)
  local before = history_of(owner, ttl)
  if before.number == 0 then return end
  local page, place = owner_page(before.number)
  call('HDEL', page, place, place .. 's')
  local after, kept, seen = empty_history(owner, ttl), {}, {}
  histories[owner] = after
  for at = 1, #before.entries, ENTRY do
    local _, time = unpack_('<II', before.entries, at)
    if time * 1000 > until_ms then kept[#kept + 1] = sub(before.entries, at, at + ENTRY - 1) end
  end
  if #kept == 0 then return end
  after.entries, after.count, after.accepted = table.concat(kept), #kept, before.accepted
  after.fresh, after.changed = nil, true
  numbered(owner, ttl)
  for at = 1, #after.entries, ENTRY do
    local item = unpack_('<I', after.entries, at)
    if item ~= 0 and not seen[item] then remember_owner(item, after.number) end
    seen[item] = true
  end
end

-- Removes all that is the user's; what is counted of items holds nothing personal and stays.
local function erase(user, until_ms)
  local history = history_of('u:' .. user, limits.user_ttl)
  for _, session in ipairs(history.number > 0 and sessions_of(history) or {}) do
    if unlink(session.name, session.shard, user) then
      bury('s:' .. session.name, until_ms)
      erase_history('s:' .. session.name, limits.session_ttl, until_ms)
    end
  end
  for _, owner in ipairs({'u:' .. user, 's:' .. user}) do
    bury(owner, until_ms)
    erase_history(owner, sub(owner, 1, 1) == 'u' and limits.user_ttl or limits.session_ttl, until_ms)
  end
  trim_tombstones()
end

-- Events -------------------------------------------------------------------------------------

local circumstances

-- Opened by the first event that says something of them: others cost nothing.
local function count_circumstances(item, time, weight, said)
  if next(said) == nil then return end
  circumstances = circumstances or open_circumstances(prefix, request, add, locate)
  circumstances.count(item, time, weight, said)
end

local types, type_total = {}, nil

-- One byte that stands for an event type; 0 once the table is full.
local function type_code(name)
  local code = types[name]
  if code then return code end
  code = tonumber(call('HGET', prefix .. 'types', name) or nil)
  if not code then
    type_total = type_total or call('HLEN', prefix .. 'types')
    if type_total >= limits.types then return 0 end
    type_total = type_total + 1
    code = type_total
    call('HSET', prefix .. 'types', name, code)
  end
  types[name] = code
  return code
end

-- Distinct items before `at`, nearest first, without the item itself.
local function window_before(entries, at, item)
  local window, seen = {}, {[item] = true}
  for from = at - ENTRY, max(1, at - 3 * limits.window * ENTRY), -ENTRY do
    local other = unpack_('<I', entries, from)
    if other ~= 0 and not seen[other] then
      seen[other] = true
      window[#window + 1] = other
      if #window == limits.window then break end
    end
  end
  return window
end

local function apply_event(history, event, is_user)
  local name, time, kind, weight, purchase = event[1], event[2], event[3], event[4], event[5]
  local hash = pack('<I6', event[6])
  if has_event(history, hash) then
    counts.duplicates = counts.duplicates + 1
    return
  end
  local item, code = 0, type_code(kind)
  if name ~= '' then item = known_item(name) or new_item(name) end
  if recent.is_repeated(item, time, event[8], code, event[6], is_user and history.number or 0) then
    counts.duplicates = counts.duplicates + 1
    return
  end
  if item ~= 0 and not has_item(history, item) then remember_owner(item, history.number) end
  local at = insert(history, pack('<IIB', item, time, code) .. hash, time)
  if item ~= 0 then
    local repeated = at > ENTRY and unpack_('<I', history.entries, at - ENTRY) == item
    if not repeated then
      count_pairs(item, window_before(history.entries, at, item), weight, time - EPOCH)
    end
    count_item(item, time, weight, purchase)
    count_circumstances(item, time, weight, event[7])
  end
  history.count = history.count + 1
  trim(history)
  counts.events = counts.events + 1
  if purchase then counts.purchases = counts.purchases + 1 end
  clock = max(clock, time)
end

local function apply_message(message, erased)
  local n_erased = 0
  for _ in pairs(erased) do n_erased = n_erased + 1 end
  counts.erased = counts.erased + n_erased
  if n_erased == #message[6] then return end
  local history, is_user = owner(message[2], message[3], message[4])
  if history.fresh then
    history.fresh = nil
    local what = is_user and 'users' or 'sessions'
    counts[what] = counts[what] + 1
  end
  for number, event in ipairs(message[6]) do
    if not erased[number] then apply_event(history, event, is_user) end
  end
  history.accepted = max(history.accepted, message[5])
  history.changed = true
  accepted = max(accepted, message[5])
end

local function write_histories()
  for name, history in pairs(histories) do
    local key, forgotten = prefix .. 'history:' .. name, prefix .. 'forgotten:' .. name
    if history.gone then call('DEL', key, forgotten) end
    if history.changed then
      local head = pack('<IId', history.count, history.number, history.accepted)
      call('SET', key, head .. history.entries, 'EX', history.ttl)
      if history.forgot then
        call('SET', forgotten, all_forgotten(history), 'EX', history.ttl)
      elseif history.count * ENTRY > #history.entries then
        call('EXPIRE', forgotten, history.ttl)
      end
    end
  end
end

local function write_counts()
  local key = prefix .. 'counts'
  for name, count in pairs(counts) do
    if count > 0 then call('HINCRBY', key, name, count) end
  end
  if clock > tonumber(call('HGET', key, 'clock') or 0) then call('HSET', key, 'clock', clock) end
  if accepted > tonumber(call('HGET', key, 'accepted_at') or 0) then
    call('HSET', key, 'accepted_at', string.format('%.6f', accepted), 'applied_at', string.format('%.6f', now))
  end
end

local function write()
  write_lists()
  if #touched > 0 then
    write_stats()
    write_categories()
  end
  write_histories()
  write_takers()
  if circumstances then circumstances.write() end
  write_counts()
end

return {
  erase = erase, erased_events = erased_events, refused_events = refused_events,
  apply_message = apply_message, write = write, counts = counts,
}
