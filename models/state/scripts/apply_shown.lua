-- Effects of served lists in one dataset group.
--
-- Takes the group's prefix, "{group}:"; apply_served.lua calls it once a step for each group that has
-- lists in it.

local prefix = ...

local histories = open_histories(prefix)
local outcomes = open_outcomes(prefix, histories)
local erasures = open_erasures(prefix, histories, outcomes)

-- Whose a list is: a user's, whom its session may be linked to, or a session's; "" for nobody's.
local function owner_of(list)
  if list[USER_ID] ~= '' then return 'u:' .. list[USER_ID] end
  if list[SESSION_ID] == '' then return '' end
  local user = histories.linked_user(list[SESSION_ID], list[SHARD])
  return user and 'u:' .. user or 's:' .. list[SESSION_ID]
end

local function serve(list)
  if erasures.erased_until_for(list) >= list[TIME_MS] then
    outcomes.counts.erased = outcomes.counts.erased + 1
  else
    outcomes.serve(list, owner_of(list))
  end
end

return {serve = serve, write = outcomes.write, counts = outcomes.counts}
