-- Erasure of users in one group, and the tombstones that keep what was erased from coming again.
--
-- Takes the group's prefix, "{group}:", its histories and its outcomes. A tombstone tells up to which time, in
-- milliseconds, all events of an owner are erased; it holds a digest of the owner only.

local prefix, histories, outcomes = ...

local key = prefix .. 'erased'

local function digest_of(owner)
  return sub(redis.sha1hex(owner), 1, 24)
end

-- Time of each tombstone by digest, -1 without one; and the latest of all.
local erased_by_digest, latest = {}, nil

local function add_tombstone(owner, until_ms)
  local digest = digest_of(owner)
  call('ZADD', key, 'GT', string.format('%.0f', until_ms), digest)
  erased_by_digest[digest], latest = nil, nil
end

local function trim_tombstones()
  local expired_ms = (request.now - limits.tombstone_ttl) * 1000
  call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', expired_ms))
  trim_sorted_set(key, limits.tombstones)
  call('EXPIRE', key, limits.tombstone_ttl)
end

local function erased_until(owner)
  local digest = digest_of(owner)
  if erased_by_digest[digest] == nil then
    erased_by_digest[digest] = tonumber(call('ZSCORE', key, digest) or nil) or -1
  end
  return erased_by_digest[digest]
end

-- Time up to which the owner of a message's events is erased.
local function erased_until_for(message)
  if message[USER_ID] ~= '' then return erased_until('u:' .. message[USER_ID]) end
  local session = message[SESSION_ID]
  local user = histories.linked_user(session, message[SHARD])
  return max(erased_until('s:' .. session), user and erased_until('u:' .. user) or -1)
end

-- Set of the numbers of a message's events that were sent or accepted before their owner was erased.
local function erased_events(message)
  local erased, accepted_ms = {}, floor(message[ACCEPTED_AT] * 1000)
  latest = latest or tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] or nil) or -1
  local until_ms
  for number, event in ipairs(message[EVENTS]) do
    local time_ms = min(event[TIME] * 1000 + event[MILLISECOND], accepted_ms)
    if time_ms <= latest then
      until_ms = until_ms or erased_until_for(message)
      if time_ms <= until_ms then erased[number] = true end
    end
  end
  return erased
end

-- Removes an owner's events up to a time; later ones stay, under a new number.
local function erase_history(owner, ttl, until_ms)
  outcomes.erase(owner, until_ms)
  local before = histories.of(owner, ttl)
  if before.number == 0 then return end
  local page, place = histories.owner_page(before.number)
  call('HDEL', page, place, place .. 's')
  local after, items = histories.emptied(owner, ttl), {}
  for k, time in ipairs(times_of(before)) do
    if time * 1000 > until_ms then items[#items + 1] = copy_event(before, k, after) end
  end
  if after.n == 0 then return end
  after.count, after.accepted = after.n, before.accepted
  after.is_new, after.changed = nil, true
  histories.numbered(owner, ttl)
  local seen = {[0] = true}
  for _, item in ipairs(items) do
    if not seen[item] then histories.remember_owner(item, after.number) end
    seen[item] = true
  end
end

local function erase_unlinked_session(session, until_ms)
  add_tombstone('s:' .. session, until_ms)
  erase_history('s:' .. session, limits.session_ttl, until_ms)
end

-- Erases a session, where it is linked to a user of another shard whose erasure it is.
local function erase_session(session, shard, user, until_ms)
  if histories.unlink(session, shard, user) then erase_unlinked_session(session, until_ms) end
  add_tombstone('u:' .. user, until_ms)
  trim_tombstones()
end

-- Erases a user, with the sessions that are linked to it and the session of its name. Counts of items
-- hold nothing personal and stay.
local function erase(user, until_ms)
  local history = histories.of('u:' .. user, limits.user_ttl)
  for _, session in ipairs(history.number > 0 and histories.linked_sessions(history) or {}) do
    local is_linked = histories.unlink(session.name, session.shard, user)
    if is_linked and not (outbox and outbox.erase(session.name, session.shard, user, until_ms)) then
      erase_unlinked_session(session.name, until_ms)
    end
  end
  add_tombstone('u:' .. user, until_ms)
  erase_history('u:' .. user, limits.user_ttl, until_ms)
  add_tombstone('s:' .. user, until_ms)
  erase_history('s:' .. user, limits.session_ttl, until_ms)
  trim_tombstones()
end

return {
  erase = erase, erase_session = erase_session, erase_unlinked_session = erase_unlinked_session, erased_events = erased_events,
  erased_until = erased_until, erased_until_for = erased_until_for,
}
