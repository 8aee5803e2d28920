-- Units, users or sessions, that experiments of one group have counted, and the sums of their arms.
--
-- Takes the group's prefix, "{group}:". Nothing is stored before `write`, but the number of units.

local prefix = ...

local exposures, experiment_sums = {}, {}

local function exposure_of(unit)
  local exposure = exposures[unit]
  if not exposure then
    local raw = call('GET', prefix .. 'exposure:' .. unit)
    exposure = {of = raw and cmsgpack.unpack(raw) or {}}
    exposures[unit] = exposure
  end
  return exposure
end

local function sums_of(experiment, arm, bucket)
  local of_experiment = experiment_sums[experiment] or {}
  experiment_sums[experiment] = of_experiment
  local field = arm .. '\t' .. bucket
  local sum = of_experiment[field] or {0, 0, 0, 0, 0, 0, 0}
  of_experiment[field] = sum
  return sum
end

-- Users that an experiment has counted, and those of this step.
local n_exposed = {}

-- Notes that a unit was shown a list of an experiment; gives the deadline for the list's outcomes, 0
-- where they do not count: another arm than its first, or more units than are counted.
local function expose(unit, served_s, name, arm, horizon_s, bucket_s)
  local exposure = exposure_of(unit)
  local one = exposure.of[name]
  if not one then
    local key = prefix .. 'experiment:' .. name
    n_exposed[name] = n_exposed[name] or tonumber(call('HGET', key, 'users') or nil) or 0
    if n_exposed[name] >= limits.experiment_users then return 0 end
    n_exposed[name] = n_exposed[name] + 1
    call('HINCRBY', key, 'users', 1)
    -- Arm, bucket of the first exposure, deadline; clicks, conversions and value until then.
    one = {arm, served_s - served_s % bucket_s, served_s + horizon_s, 0, 0, 0}
    exposure.of[name], exposure.changed = one, true
    local sum = sums_of(name, arm, one[2])
    sum[1] = sum[1] + 1
  end
  return one[1] == arm and one[3] or 0
end

-- Changes a unit's outcomes in an experiment, and with them the sums of its arm: users, users who
-- clicked, who bought, clicks and their squares, value and its squares.
local function add(unit, experiment, clicks, conversions, value)
  if clicks == 0 and conversions == 0 and value == 0 then return end
  local exposure = exposure_of(unit)
  local one = exposure.of[experiment]
  if not one then return end
  local sum = sums_of(experiment, one[1], one[2])
  local before = {one[4], one[5], one[6]}
  one[4], one[5], one[6] = one[4] + clicks, one[5] + conversions, one[6] + value
  exposure.changed = true
  sum[2] = sum[2] + min(one[4], 1) - min(before[1], 1)
  sum[3] = sum[3] + min(one[5], 1) - min(before[2], 1)
  sum[4] = sum[4] + clicks
  sum[5] = sum[5] + one[4] * one[4] - before[1] * before[1]
  sum[6] = sum[6] + value
  sum[7] = sum[7] + one[6] * one[6] - before[3] * before[3]
end

local function write()
  for unit, exposure in pairs(exposures) do
    if exposure.changed then
      call('SET', prefix .. 'exposure:' .. unit, cmsgpack.pack(exposure.of), 'EX', EXPOSURE_TTL_S)
    end
  end
  for name, fields in pairs(experiment_sums) do
    local key = prefix .. 'experiment:' .. name
    for field, sum in pairs(fields) do
      local stored = call('HGET', key, field)
      if stored then
        for at, value in ipairs({unpack_('<ddddddd', stored)}) do
          if at <= 7 then sum[at] = sum[at] + value end
        end
      end
      call('HSET', key, field, pack('<ddddddd', unpack(sum)))
    end
    call('EXPIRE', key, EXPERIMENT_TTL_S)
  end
end

-- Forgets what an erased unit was counted for; the sums hold nothing personal and stay.
local function erase(unit)
  exposures[unit] = {of = {}}
  call('DEL', prefix .. 'exposure:' .. unit)
end

return {expose = expose, add = add, erase = erase, write = write}
