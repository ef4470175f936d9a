-- Take in what has become of a version of a device's configuration.
--
-- KEYS  1 the partition's devices that are due (see table.lua)
-- ARGV  1 device   2 version   3 now, µs   4 what:
--       'returned'    it did not get to the device
--       'sent'        it was given to its connection or broker
--       'progress'    the device is at it; 5 how far, %   6 how long to wait for its report, µs
--       'failed'      the device cannot; 5 why
--       'confirmed'   the device has it
--       'reported'    what the device has: 5… key, JSON, key, JSON …
-- Returns the state then.

local device, version, now, what = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local current, state = tonumber(get(device, 'version')) or 0, get(device, 'state')
local is_open = state == 'pending' or state == 'sent'
local MOST = 1000000000 -- of versions that a device may say it was given by a store that has forgotten them

local function report()
  local key = reported_key(device)
  if what == 'reported' then
    call('DEL', key)
    for at = 5, #ARGV, 2 do call('HSET', key, ARGV[at], ARGV[at + 1]) end
  elseif version == current then
    call('DEL', key)
    local flat = call('HGETALL', desired_key(device))
    for at = 1, #flat, 2 do call('HSET', key, flat[at], flat[at + 1]) end
  end
  call('HSET', device_key(device), 'reported_version', version, 'reported_at', now)
end

-- Tell whether all that is desired was reported; of something with a version that alone may be.
local function has_all()
  local flat = call('HGETALL', desired_key(device))
  for at = 1, #flat, 2 do
    local reported = call('HGET', reported_key(device), flat[at])
    if not reported then return false end
    if reported ~= flat[at + 1] then
      local wanted = cjson.decode(flat[at + 1])
      local is_read, found = pcall(cjson.decode, reported) -- a device may nest deeper than cjson reads
      if not is_read then return false end
      local is_version = type(wanted) == 'table' and wanted.version ~= nil and wanted.version == found
      if not is_version and not is_same(wanted, found) then return false end
    end
  end
  return true
end

local function settle()
  if current == 0 then return end
  if version > current and version < MOST then -- the store has forgotten versions that the device was given
    call('HSET', device_key(device), 'version', version + 1)
    push(device, now)
  elseif version ~= current then -- the device has forgotten, or what it says is old, or cannot be
    if not is_open then push(device, now) end
  else
    call('ZREM', DUE, device)
    move(device, has_all() and 'applied' or 'drifted', 'error', '', 'progress', -1)
  end
end

if what == 'confirmed' or what == 'reported' then
  report()
  settle()
elseif version == current and current > 0 then
  if what == 'returned' and is_open then
    call('ZADD', DUE, 'XX', now, device)
    if tonumber(get(device, 'attempt')) > 0 then call('HINCRBY', device_key(device), 'attempt', -1) end
    announce(device) -- another connector may have a way to it
  elseif what == 'sent' then
    call('HSET', device_key(device), 'given', now)
    if state == 'pending' then move(device, 'sent') end
  elseif what == 'progress' and is_open then
    call('ZADD', DUE, 'XX', now + tonumber(ARGV[6]), device)
    move(device, 'sent', 'progress', ARGV[5])
  elseif what == 'failed' then
    call('ZREM', DUE, device)
    move(device, 'failed', 'error', ARGV[5])
  end
end
return get(device, 'state')
