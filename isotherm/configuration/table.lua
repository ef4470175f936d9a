-- What the scripts of devices' configurations have in common. KEYS[1] is the partition's zset of the devices to which what is
-- desired has to be given, by when that is due, µs.

local call = redis.call
local DUE = KEYS[1]
local KEPT = 90 * 86400 -- s, how long it is remembered how far a rollout is with its devices
local FOREVER = -1 -- what TTL says of a key that does not expire
local STATES = { 'waiting', 'pending', 'sent', 'applied', 'drifted', 'failed', 'superseded' }

local function device_key(device) return DUE .. ':device:' .. device end
local function desired_key(device) return DUE .. ':desired:' .. device end
local function reported_key(device) return DUE .. ':reported:' .. device end
local function members_key(rollout, state) return DUE .. ':rollout:' .. rollout .. ':' .. state end
local function before_key(rollout) return DUE .. ':before:' .. rollout end

local function held_key(rollout) return DUE .. ':held:' .. rollout end
local function joined_key(rollout) return members_key(rollout, 'joined') end

-- Have something that is remembered of a rollout end in time: of a continuous one as the devices that have joined it do.
local function keep(rollout, key)
  if call('TTL', joined_key(rollout)) == FOREVER then call('PERSIST', key) else call('EXPIRE', key, KEPT) end
end

-- Say how far a rollout is with a device; of one that waits, for which wave.
local function enter(rollout, device, state, wave)
  if rollout == '' then return end
  for _, other in ipairs(STATES) do call('ZREM', members_key(rollout, other), device) end
  call('ZADD', members_key(rollout, state), wave or 0, device)
  keep(rollout, members_key(rollout, state))
end

local function get(device, field) return call('HGET', device_key(device), field) or '' end

-- Say how far a device is, with other fields.
local function move(device, state, ...)
  call('HSET', device_key(device), 'state', state, ...)
  enter(get(device, 'rollout'), device, state)
end

-- Tell connectors that something is due for a device.
local function announce(device) call('PUBLISH', DUE .. ':live', 'queued ' .. device .. ' configuration') end

-- Have a device given what is desired, now.
local function push(device, now)
  move(device, 'pending', 'attempt', 0, 'error', '', 'progress', -1)
  call('ZADD', DUE, now, device)
  announce(device)
end

local function is_same(a, b)
  if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end
  for key, value in pairs(a) do
    if not is_same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end
