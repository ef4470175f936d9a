-- Take up what is desired of a device, before it is given to it.
--
-- KEYS  1 the partition's devices that are due (see table.lua)
-- ARGV  1 device   2 now, µs   3 connector   4 '1' if the device has come anew: what was sent before may be lost
--       then how long to wait for its report, µs: the first time, the second time, …
-- Returns {} if nothing is due, else {fields, desired}.

local device, now, via = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local due = call('ZSCORE', DUE, device)
if not due then return {} end
if tonumber(due) > now and not (ARGV[4] == '1' and get(device, 'state') == 'sent') then return {} end
local attempt = call('HINCRBY', device_key(device), 'attempt', 1)
call('HSET', device_key(device), 'via', via)
call('ZADD', DUE, now + tonumber(ARGV[math.min(4 + attempt, #ARGV)]), device)
return { call('HGETALL', device_key(device)), call('HGETALL', desired_key(device)) }
