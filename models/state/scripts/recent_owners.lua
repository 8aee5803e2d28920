-- The owners of histories that took an item last, by the numbers of the histories.
--
-- Takes the group's prefix, "{group}:". Stored by `write`.

local prefix = ...

local recent_owners, forgotten_owners = {}, {}

-- An item remembers an owner from the owner's first event on it, of those its history still has.
local function remember(item, number)
  local added = recent_owners[item] or {}
  recent_owners[item] = added
  added[#added + 1] = pack('<I', number)
end

-- An item forgets an owner that has no event on it any more: the newest mention of its number.
local function forget(item, number)
  local packed, added = pack('<I', number), recent_owners[item] or {}
  for n = #added, 1, -1 do
    if added[n] == packed then
      table.remove(added, n)
      return
    end
  end
  local forgotten = forgotten_owners[item] or {}
  forgotten_owners[item] = forgotten
  forgotten[#forgotten + 1] = packed
end

local function write_forgotten()
  for item, forgotten in pairs(forgotten_owners) do
    local key = prefix .. 'takers:' .. item
    local stored = call('GET', key) or ''
    for _, packed in ipairs(forgotten) do
      for at = #stored - HISTORY_NUMBER_BYTES + 1, 1, -HISTORY_NUMBER_BYTES do
        if sub(stored, at, at + HISTORY_NUMBER_BYTES - 1) == packed then
          stored = sub(stored, 1, at - 1) .. sub(stored, at + HISTORY_NUMBER_BYTES)
          break
        end
      end
    end
    if stored == '' then call('DEL', key) else call('SET', key, stored) end
  end
end

-- The newest number stands last. A list is set whole: one that is appended to takes up to twice its
-- length, as Redis leaves room for more.
local function write()
  write_forgotten()
  local limit_bytes = HISTORY_NUMBER_BYTES * limits.recent_owners
  for item, added in pairs(recent_owners) do
    local key = prefix .. 'takers:' .. item
    if #added > 0 then
      call('SET', key, sub((call('GET', key) or '') .. table.concat(added), -limit_bytes))
    end
  end
end

return {remember = remember, forget = forget, write = write}
