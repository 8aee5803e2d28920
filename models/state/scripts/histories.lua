-- A group's histories, with the links from sessions to users and the owners that items remember.
--
-- Takes the group's prefix, "{group}:". Only new links are stored before `write`.

local prefix = ...
local recent_owners = open_recent_owners(prefix)

-- Numbers of anonymous sessions' histories start here: pages of their own, which expire with the last
-- of these sessions and not with some user.
local FIRST_SESSION = 2 ^ 31

-- Histories ----------------------------------------------------------------------------------------

local histories = {}

-- The history of an owner: "u:<user>", or "s:<session>" of an anonymous session.
local function history_of(owner, ttl)
  local history = histories[owner]
  if history then return history end
  local raw = call('GET', prefix .. 'history:' .. owner)
  if raw then
    history = unpack_history(raw)
  else
    history = without_events({count = 0, number = 0, accepted = 0, is_new = true})
  end
  history.ttl, history.owner = ttl, owner
  histories[owner] = history
  return history
end

local function has_trimmed(history)
  return history.count > history.n
end

-- Ids of the last events that the history has trimmed, as stored. Only one that outgrew its limit has
-- any: a late event is trimmed at once, and would count again each time it came.
local function stored_trimmed_ids(history)
  if not history.trimmed then
    history.trimmed = has_trimmed(history) and call('GET', prefix .. 'forgotten:' .. history.owner) or ''
  end
  return history.trimmed
end

-- Keeps a trimmed event's id behind the stored ones, with its place among those of this step.
local function keep_trimmed_id(history, id)
  stored_trimmed_ids(history) -- as they were before
  local ids = history.newly_trimmed or {}
  history.newly_trimmed = ids
  ids[#ids + 1] = id
  ids[id] = #ids
end

local function all_trimmed_ids(history)
  local ids = stored_trimmed_ids(history)
  if history.newly_trimmed then ids = ids .. table.concat(history.newly_trimmed) end
  return sub(ids, -limits.trimmed_ids * HASH_BYTES)
end

-- Whether an id is among the last of both: how a stream is cut into steps makes no difference.
local function is_trimmed(history, id)
  local ids, new = stored_trimmed_ids(history), history.newly_trimmed
  local n_new, place = new and #new or 0, new and new[id]
  if place then return n_new - place < limits.trimmed_ids end
  local at = #ids > 0 and locate(ids, id, HASH_BYTES, 0)
  return at and (#ids - at + 1) / HASH_BYTES + n_new <= limits.trimmed_ids
end

-- Whether the event of this id is among the history's last ones, in whatever order they came: its place,
-- or true of one that has been trimmed.
local function has_event(history, id)
  return find_event(history, id) or is_trimmed(history, id)
end

local function has_item(history, item)
  return find_item(history, item, 1) ~= nil
end

local function trim(history)
  local excess = history.n - limits.history
  if excess <= 0 then return end
  for k = 1, excess do
    keep_trimmed_id(history, sub(history.hashes, (k - 1) * HASH_BYTES + 1, k * HASH_BYTES))
  end
  drop_first(history, excess)
end

-- Item of the last live event before the k-th; 0 without one.
local function item_before(history, k)
  for before = k - 1, 1, -1 do
    if effect_at(history, before) == 0 then return item_at(history, before) end
  end
  return 0
end

-- Distinct items of the live events before the k-th, nearest first, without the item itself.
local function window_before(history, k, item)
  local window, seen = {}, {[item] = true}
  -- A window of distinct items may take this many events; beyond them it stays short.
  for before = k - 1, max(1, k - 3 * limits.window), -1 do
    local other = item_at(history, before)
    if other ~= 0 and not seen[other] and effect_at(history, before) == 0 then
      seen[other] = true
      window[#window + 1] = other
      if #window == limits.window then break end
    end
  end
  return window
end

-- Numbers of histories ----------------------------------------------------------------------------

local function owner_page(number)
  return prefix .. 'owners:' .. floor(number / OWNERS_PER_PAGE), number % OWNERS_PER_PAGE
end

local function new_number(owner)
  local is_user = sub(owner, 1, 2) == 'u:'
  local n = call('HINCRBY', prefix .. 'counts', is_user and 'owner_index' or 'session_index', 1)
  return (is_user and 0 or FIRST_SESSION) + own_number(n, OWNERS_PER_PAGE)
end

-- The history of an owner, with a number by which items remember it.
local function numbered_history(owner, ttl)
  local history = history_of(owner, ttl)
  local is_new = history.number == 0
  if is_new then history.number = new_number(owner) end
  -- Each owner renews its page twice in its lifetime: it must not expire before the history.
  if is_new or floor(2 * history.accepted / ttl) ~= floor(2 * request.now / ttl) then
    local page, place = owner_page(history.number)
    call('HSET', page, place, owner)
    call('EXPIRE', page, 2 * ttl)
  end
  return history
end

-- An owner's history after its events have left it; it is stored again only if it is `changed`.
local function emptied_history(owner, ttl)
  local history = without_events({
    is_deleted = true, is_new = true, owner = owner, ttl = ttl,
    count = 0, number = 0, accepted = 0, trimmed = '',
  })
  histories[owner] = history
  return history
end

-- Links from sessions to users ---------------------------------------------------------------------

local GENERATION = floor(request.now / limits.session_ttl)

local linked_users = {}

local function links_key(generation, shard)
  return prefix .. 'links:' .. generation .. ':' .. shard
end

local function link(session, shard, user)
  local key = links_key(GENERATION, shard)
  call('HSET', key, session, user)
  call('EXPIRE', key, 2 * limits.session_ttl)
  linked_users[session] = user
  if outbox then outbox.link(session, shard, user) end
end

-- The user a session is linked to, or false. Links live in two generations of sharded hashes; one
-- that is used in the older moves to the newer.
local function linked_user(session, shard)
  local user = linked_users[session]
  if user == nil then
    user = call('HGET', links_key(GENERATION, shard), session)
    if not user then
      user = call('HGET', links_key(GENERATION - 1, shard), session)
      if user then link(session, shard, user) end
    end
    linked_users[session] = user
  end
  return user
end

-- Removes a session's link to a user; returns whether there was one.
local function unlink(session, shard, user)
  if linked_user(session, shard) ~= user then return false end
  for generation = GENERATION - 1, GENERATION do call('HDEL', links_key(generation, shard), session) end
  linked_users[session] = false
  return true
end

-- Sessions that are linked to a user stand beside the user's name on its page, oldest link first: an
-- erasure finds them there. Returns them, and the key and field they stand in.
local function linked_sessions(history)
  local page, place = owner_page(history.number)
  local raw, found, at = call('HGET', page, place .. 's') or '', {}, 1
  while at <= #raw do
    local shard, size = unpack_('<BH', raw, at)
    local from = at + SESSION_HEAD_BYTES
    found[#found + 1] = {name = sub(raw, from, from + size - 1), shard = shard}
    at = from + size
  end
  return found, page, place .. 's'
end

local function packed_session(name, shard)
  return pack('<BH', shard, #name) .. name
end

-- Puts a session behind the user's other ones; of too many, the oldest links are removed.
local function add_linked_session(history, user, session, shard)
  local found, page, field = linked_sessions(history)
  local kept = {}
  for n, one in ipairs(found) do
    if one.name ~= session then
      if #found - n + 1 < limits.user_sessions then
        kept[#kept + 1] = packed_session(one.name, one.shard)
      else
        unlink(one.name, one.shard, user)
        if outbox then outbox.unlink(one.name, one.shard, user) end
      end
    end
  end
  call('HSET', page, field, table.concat(kept) .. packed_session(session, shard))
end

-- Adds what has left an anonymous session to a user's history, as if its events came now; none twice.
-- `ids` are those that the session has trimmed.
local function take_in(anonymous, ids, history)
  for at = 1, #ids, HASH_BYTES do keep_trimmed_id(history, sub(ids, at, at + HASH_BYTES - 1)) end
  history.count = history.count + anonymous.count - anonymous.n
  for k = 1, anonymous.n do
    if not has_event(history, sub(anonymous.hashes, (k - 1) * HASH_BYTES + 1, k * HASH_BYTES)) then
      local item = effect_at(anonymous, k) == 0 and item_at(anonymous, k) or 0
      if item ~= 0 and not has_item(history, item) then recent_owners.remember(item, history.number) end
      copy_event(anonymous, k, history)
      history.count = history.count + 1
    end
  end
  trim(history)
  history.accepted = max(history.accepted, anonymous.accepted)
end

-- Removes an anonymous session's history, for `take_in`; nil without one, else it and its trimmed ids.
local function take_out(session)
  local anonymous = history_of(session, limits.session_ttl)
  if anonymous.is_new then return nil end
  local ids = all_trimmed_ids(anonymous)
  call('HDEL', owner_page(anonymous.number))
  emptied_history(session, limits.session_ttl)
  return anonymous, ids
end

-- The history that a message's events belong to, whether it is a user's, and whether its session has
-- just been joined to it. A message that names a user links its session to the user.
local function resolve(message)
  local user, session, shard = message[USER_ID], message[SESSION_ID], message[SHARD]
  local anonymous = 's:' .. session
  if user == '' then
    user = linked_user(session, shard)
    if not user then return numbered_history(anonymous, limits.session_ttl), false end
  end
  local history = numbered_history('u:' .. user, limits.user_ttl)
  local is_new = user ~= session and linked_user(session, shard) ~= user
  if is_new then
    local joining, ids = take_out(anonymous)
    if joining then take_in(joining, ids, history) end
    link(session, shard, user)
    add_linked_session(history, user, session, shard)
  end
  return history, true, is_new
end

local function write()
  for owner, history in pairs(histories) do
    local key, trimmed = prefix .. 'history:' .. owner, prefix .. 'forgotten:' .. owner
    if history.is_deleted then call('DEL', key, trimmed) end
    if history.changed then
      call('SET', key, pack_history(history), 'EX', history.ttl)
      if history.newly_trimmed then
        call('SET', trimmed, all_trimmed_ids(history), 'EX', history.ttl)
      elseif has_trimmed(history) then
        call('EXPIRE', trimmed, history.ttl)
      end
    end
  end
  recent_owners.write()
end

return {
  of = history_of, numbered = numbered_history, emptied = emptied_history, resolve = resolve,
  has_event = has_event, is_trimmed = is_trimmed, has_item = has_item, trim = trim,
  window_before = window_before, item_before = item_before, remember_owner = recent_owners.remember,
  forget_owner = recent_owners.forget, owner_page = owner_page,
  linked_user = linked_user, linked_sessions = linked_sessions, link = link, unlink = unlink,
  take_in = take_in, take_out = take_out, write = write,
}
