-- Change what is desired of devices.
--
-- KEYS  1 the partition's devices that are due (see table.lua)
-- ARGV  1 now, µs   2 by whom   3 rollout or ''   4 rollout that is taken back or ''   5 version expected or ''
--       6 most keys   7 most bytes   8 n, then n × (key, JSON or '' to remove it), then the devices
-- Returns for each device 1 if it was changed, 0 if that was so already, or why not: 'gone' if the rollout does not want it
-- any more, 'version', 'large'.

local now, by, rollout, back, expected = unpack(ARGV, 1, 5)
local is_held = call('EXISTS', held_key(rollout)) == 1
local most_keys, most_bytes, n = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

-- Return key → new value of what changes, and whether somebody else has changed what is to be taken back.
local function changes_of(device)
  local changes, is_left = {}, false
  for at = 9, 7 + 2 * n, 2 do
    local key, value = ARGV[at], ARGV[at + 1]
    local before = call('HGET', desired_key(device), key) or ''
    if back ~= '' then
      if before ~= value then
        value, is_left = before, true
      else
        value = call('HGET', before_key(back), device .. ' ' .. key) or before
      end
    end
    if value ~= before then changes[key] = { before, value } end
  end
  return changes, is_left
end

local function is_too_large(device, changes)
  local keys, bytes = 0, 0
  local flat = call('HGETALL', desired_key(device))
  for at = 1, #flat, 2 do
    if not changes[flat[at]] then keys, bytes = keys + 1, bytes + #flat[at] + #flat[at + 1] + 4 end
  end
  for key, change in pairs(changes) do
    if change[2] ~= '' then keys, bytes = keys + 1, bytes + #key + #change[2] + 4 end
  end
  return keys > most_keys or bytes > most_bytes
end

local function assign(device)
  if rollout ~= '' and (is_held or not call('ZSCORE', members_key(rollout, 'waiting'), device)) then return 'gone' end
  if expected ~= '' and (tonumber(get(device, 'version')) or 0) ~= tonumber(expected) then return 'version' end
  local changes, is_left = changes_of(device)
  if is_too_large(device, changes) then
    enter(rollout, device, 'failed')
    return 'large'
  end
  if is_left and next(changes) == nil then
    enter(rollout, device, 'superseded')
    return 0
  end
  local state, other = get(device, 'state'), get(device, 'rollout')
  if other ~= '' and other ~= rollout and state ~= 'applied' then enter(other, device, 'superseded') end
  call('HSET', device_key(device), 'rollout', rollout)
  if next(changes) == nil and (state == 'applied' or get(device, 'version') == '') then
    enter(rollout, device, 'applied')
    return 0
  end
  if next(changes) ~= nil then
    for key, change in pairs(changes) do
      if rollout ~= '' then
        call('HSET', before_key(rollout), device .. ' ' .. key, change[1])
        keep(rollout, before_key(rollout))
      end
      if change[2] == '' then
        call('HDEL', desired_key(device), key)
      else
        call('HSET', desired_key(device), key, change[2])
      end
    end
    call('HINCRBY', device_key(device), 'version', 1)
    call('HSET', device_key(device), 'changed', now, 'by', by)
  end
  push(device, now)
  return next(changes) ~= nil and 1 or 0
end

local answers = {}
for at = 9 + 2 * n, #ARGV do answers[#answers + 1] = assign(ARGV[at]) end
return answers
