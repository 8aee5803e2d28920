-- Applies messages of events and erasures, each exactly once: one call is one atomic step, of any
-- number of dataset groups.
--
-- Comes behind prelude.lua and functions `open_<name>` whose bodies are the files of that name; see
-- models/state/store.py.
--
-- KEYS[1]  {group}:watermarks of the group in the settings, which also routes the call in a cluster.
--          They hold for the messages of every group.
-- KEYS[2]  {recommender}:groups, where messages of other groups are among them
-- ARGV[1]  MessagePack of
--   prefix   "{group}:" of the group in the settings
--   now      seconds; for expiry and freshness only, event times come with the events
--   limits   history, trimmed_ids, recent, window, neighbours, recent_owners, tops, items, types,
--            context_items, context_values, user_sessions, tombstones; session_ttl, user_ttl,
--            tombstone_ttl (seconds)
--   parts    one of each partition: models/state/messages.py has its fields and those of messages and
--            events
--
-- Returns {status, watermark, offset, refused event numbers} of each part, then the counts.
--   status "applied"   the part is in effect up to its watermark
--          "lost"      the store is not where the worker left it: read on from where it is
--          "full"      the message at `offset` names new items beyond the limit
--          "gone"      the message at `offset` is of a group that does not exist
--                      nothing of it, nor of what follows in the part, is in effect

-- Applies a message; or refuses it with a status and the numbers of refused events.
local function apply_message(field, message)
  local erased_at = message[ERASED_AT]
  if #message[EVENTS] == 0 and erased_at == 0 then return nil end
  local group = group_of(message[GROUP], open_group)
  -- A group that does not exist has no user to erase.
  if not group and erased_at > 0 then return nil end
  if not group then return 'gone' end
  if is_repeated(group, field, message[OFFSET]) then return nil end
  if erased_at > 0 then
    group.erase(message[USER_ID], floor(erased_at * 1000))
    local name = message[ACTIONS_GROUP]
    local actions = name ~= '' and group_of(name, open_group)
    if actions then actions.erase(message[USER_ID], floor(erased_at * 1000)) end
  else
    local erased = group.erased_events(message)
    local refused = group.refused_events(message[EVENTS], erased)
    if #refused > 0 then return 'full', refused end
    group.apply_message(message, erased)
  end
  note_mark(group, field, message[OFFSET])
end

local results = {}
local totals = {events = 0, imported = 0, purchases = 0, negatives = 0, undone = 0, undone_purchases = 0, duplicates = 0, items = 0, users = 0, sessions = 0, erased = 0}
for number, part in ipairs(request.parts) do results[number] = apply_part(part, apply_message) end
write_groups(totals)
return cmsgpack.pack({results, totals})
