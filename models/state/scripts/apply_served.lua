-- Applies messages of served lists, each exactly once: one call is one atomic step.
--
-- Comes behind prelude.lua, group_marks.lua and functions `open_<name>`; see
-- models/state/outcomes/served_outcomes.py. Keys and arguments as in apply_batch.lua; a list of a group that
-- does not exist has no effect.
--
-- Returns {status, watermark, -1, {}} of each part, `applied` or `lost`, then the counts.

local function apply_message(field, message)
  local group = #message[LISTS] > 0 and group_of(message[GROUP], open_shown)
  if not group or is_repeated(group, field, message[OFFSET]) then return nil end
  for _, list in ipairs(message[LISTS]) do group.serve(list) end
  note_mark(group, field, message[OFFSET])
end

local results = {}
local totals = {lists = 0, repeated = 0, unfollowed = 0, erased = 0}
for number, part in ipairs(request.parts) do results[number] = apply_part(part, apply_message) end
write_groups(totals)
return cmsgpack.pack({results, totals})
