-- Forget what is desired of a device and what it has reported. Its version stays: devices do once what has the same version.
--
-- KEYS  1 the partition's devices that are due (see table.lua)
-- ARGV  1 device

local device = ARGV[1]
local version, state = get(device, 'version'), get(device, 'state')
if state == 'pending' or state == 'sent' then enter(get(device, 'rollout'), device, 'superseded') end
call('ZREM', DUE, device)
call('DEL', device_key(device), desired_key(device), reported_key(device))
if version ~= '' then call('HSET', device_key(device), 'version', version) end
