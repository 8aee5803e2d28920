-- The groups of a step, each opened by its first message, with watermarks of their own beside those of
-- the settings' group.

local groups = {}

-- A group's state, made by `open` of its prefix; false where the group does not exist.
local function group_of(name, open)
  local group = groups[name]
  if group == nil then
    local prefix = prefix_of(name)
    group = prefix and open(prefix) or false
    if group and name ~= '' then
      -- Its own watermarks: were those of the settings' group lost alone, its messages would come
      -- again.
      group.key, group.marks = prefix .. 'watermarks', {}
    end
    groups[name] = group
  end
  return group
end

-- Whether a group's own watermarks say that it has the message in its effects already.
local function is_repeated(group, field, offset)
  if not group.marks then return false end
  group.marks[field] = group.marks[field] or read_mark(group.key, field)
  return offset <= group.marks[field]
end

local function note_mark(group, field, offset)
  if group.marks then group.marks[field] = offset end
end

-- Writes what the step has changed in every group, adds up its counts in `totals`, and moves the
-- watermarks.
local function write_groups(totals)
  for _, group in pairs(groups) do
    if group then
      group.write()
      for name, count in pairs(group.counts) do totals[name] = totals[name] + count end
      if group.marks then write_marks(group.key, group.marks) end
    end
  end
  write_watermarks()
end
