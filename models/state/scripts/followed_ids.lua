-- Ids of the lists that are followed in one group, and whose they are; and events that named a list before it came.
--
-- Takes the group's prefix, "{group}:". Both are kept in two generations of a hash, each of one window: what
-- is written now is found for one window at least.

local prefix = ...

local generation = floor(request.now / limits.outcome_window)

local function find_twice(name, field)
  local found = call('HGET', prefix .. name .. ':' .. generation, field)
  if found then return found, generation end
  return call('HGET', prefix .. name .. ':' .. generation - 1, field), generation - 1
end

local function put_now(name, field, value)
  local key = prefix .. name .. ':' .. generation
  call('HSET', key, field, value)
  call('EXPIRE', key, 2 * limits.outcome_window)
end

-- Owner of a list; false if it is not known.
local function owner_of(id)
  return (find_twice('askers', id))
end

local function put(id, owner)
  put_now('askers', id, owner)
end

local function forget(id)
  for number = generation - 1, generation do call('HDEL', prefix .. 'askers:' .. number, id) end
end

local n_asked

-- Whether as many lists are followed as may be; counts what this step adds.
local function is_full()
  n_asked = n_asked or call('HLEN', prefix .. 'askers:' .. generation)
  return 2 * n_asked >= limits.outcome_lists
end

-- Follows a new list; `is_full` was asked before.
local function add(id, owner)
  put(id, owner)
  n_asked = n_asked + 1
end

-- Keeps an event that names a list which nobody has been served yet: {hash, ...}.
local function await(id, event)
  local found, number = find_twice('awaited', id)
  local waiting = found and cmsgpack.unpack(found) or {}
  if #waiting >= AWAITED_EVENTS then return end
  waiting[#waiting + 1] = event
  if found then
    call('HSET', prefix .. 'awaited:' .. number, id, cmsgpack.pack(waiting))
  elseif call('HLEN', prefix .. 'awaited:' .. generation) < AWAITED_LISTS then
    put_now('awaited', id, cmsgpack.pack(waiting))
  end
end

-- Keeps such an event no more, by its hash.
local function forget_awaited(id, hash)
  local found, number = find_twice('awaited', id)
  if not found then return end
  local kept = {}
  for _, event in ipairs(cmsgpack.unpack(found)) do
    if event[1] ~= hash then kept[#kept + 1] = event end
  end
  if #kept > 0 then
    call('HSET', prefix .. 'awaited:' .. number, id, cmsgpack.pack(kept))
  else
    call('HDEL', prefix .. 'awaited:' .. number, id)
  end
end

local is_awaiting

-- Events that named a list before it was known, which are no longer kept for it.
local function take_awaited(id)
  if is_awaiting == nil then
    local key = prefix .. 'awaited:'
    is_awaiting = call('EXISTS', key .. generation, key .. generation - 1) > 0
  end
  local found, number = nil, nil
  if is_awaiting then found, number = find_twice('awaited', id) end
  if not found then return {} end
  call('HDEL', prefix .. 'awaited:' .. number, id)
  return cmsgpack.unpack(found)
end

return {
  owner_of = owner_of, put = put, add = add, forget = forget, is_full = is_full, await = await,
  forget_awaited = forget_awaited, take_awaited = take_awaited,
}
