-- Applies messages of events, and deltas of other session shards, in one session shard: one atomic step,
-- which leaves in the outbox what it changes in other shards.
--
-- KEYS[1]  {group/uNN}:watermarks
-- ARGV[1]  MessagePack of the request of apply_batch.lua, and
--   shard    this shard's number; shards: how many there are
--   indexes  index of each item of the events by its id; types: code of each event type
--   deltas   parts of partitions of deltas, see delta_parts.lua
--
-- Returns results of the parts of events as apply_batch.lua, those of the parts of deltas, the counts, and
-- how many runs of deltas were left because some before them are missing, as MessagePack; then what was
-- put into the outbox: the name of each shard, and the value for it.

local group = open_group(request.prefix)
local histories, erasures = group.histories, group.erasures

for name, code in pairs(request.types) do call('HSETNX', request.prefix .. 'types', name, code) end

-- A message's events, of which none is erased any more; nil without one.
local function without_erased(message, erased)
  local kept = {}
  for number, event in ipairs(message[EVENTS]) do
    if erased[number] then group.counts.erased = group.counts.erased + 1 else kept[#kept + 1] = event end
  end
  message[EVENTS] = kept
  return #kept > 0 and message or nil
end

-- Leaves an anonymous message to the shard of the user that its session is linked to; false where that
-- is this one, or there is none.
local function forward(message, erased)
  local user = message[USER_ID] == '' and histories.linked_user(message[SESSION_ID], message[SHARD])
  if not user or owner_shard(user) == request.shard then return false end
  local kept = without_erased(message, erased)
  if kept then outbox.forward(user, kept) end
  return true
end

local function apply_events(message)
  local erased = group.erased_events(message)
  local refused = group.refused_events(message[EVENTS], erased)
  if #refused > 0 then return 'full', refused end
  if not forward(message, erased) then group.apply_message(message, erased) end
end

local function apply_message(field, message)
  begin_message(field, message[OFFSET], message[ACCEPTED_AT])
  if message[ERASED_AT] > 0 then
    group.erase(message[USER_ID], floor(message[ERASED_AT] * 1000))
  elseif #message[EVENTS] > 0 then
    return apply_events(message)
  end
end

-- Links a session of this shard to a user of another, to whom its history goes. Of a user that has been
-- erased since the message was accepted, the session is erased: both deltas come in any order.
local function link(session, shard, user, accepted_ms)
  local until_ms = erasures.erased_until('u:' .. user)
  if accepted_ms <= until_ms then return erasures.erase_unlinked_session(session, until_ms) end
  local before = histories.linked_user(session, shard)
  if before and before ~= user then outbox.unlinked(session, shard, before) end
  histories.link(session, shard, user)
  local anonymous, ids = histories.take_out('s:' .. session)
  if anonymous then outbox.join(user, anonymous, ids) end
end

-- A history without what was erased with the user while it was on its way.
local function without_erased_events(history, until_ms)
  local kept = without_events({accepted = history.accepted})
  for k, time in ipairs(times_of(history)) do
    if time * 1000 > until_ms then copy_event(history, k, kept) end
  end
  kept.count = kept.n < history.n and kept.n or history.count
  return kept
end

-- Takes the history of a session of another shard into that of a user of this one, with the names of its
-- type codes.
local function join(user, packed, ids, types)
  for at = 1, #types, 2 do call('HSETNX', request.prefix .. 'types', types[at], types[at + 1]) end
  local until_ms = erasures.erased_until('u:' .. user)
  local joining = unpack_history(packed)
  local kept = without_erased_events(joining, until_ms)
  if kept.n < joining.n then ids = '' end
  if kept.n == 0 and ids == '' then return end
  local history = histories.numbered('u:' .. user, limits.user_ttl)
  if history.is_new then
    history.is_new = nil
    group.counts.users = group.counts.users + 1
  end
  histories.take_in(kept, ids, history)
  history.changed = true
end

-- Applies a message whose session another shard has found to be this user's.
local function apply_forwarded(user, message, indexes, codes)
  for name, index in pairs(indexes) do request.indexes[name] = index end
  for name, code in pairs(codes) do call('HSETNX', request.prefix .. 'types', name, code) end
  -- Under the session's name it would link it again, which may be another's by now.
  message[USER_ID], message[SESSION_ID] = user, user
  group.apply_message(message, group.erased_events(message))
end

local APPLY = {
  [LINK_DELTA] = link,
  [UNLINK_DELTA] = histories.unlink,
  [UNLINKED_DELTA] = histories.unlink,
  [ERASE_DELTA] = erasures.erase_session,
  [JOIN_DELTA] = join,
  [FORWARD_DELTA] = apply_forwarded,
}

local function apply_delta(delta) APPLY[delta[1]](unpack(delta, 2)) end

local results, of_deltas = {}, {}
for number, part in ipairs(request.deltas) do
  of_deltas[number] = apply_deltas_part(part, begin_message, apply_delta)
end
for number, part in ipairs(request.parts) do results[number] = apply_part(part, apply_message) end
group.write()
write_sources()
write_watermarks()
return {cmsgpack.pack({results, of_deltas, group.counts, n_gaps}), unpack(write_outbox())}
