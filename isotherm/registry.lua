-- Say other things of a device, or forget it: at once, and if it is asked for only while it is as it was seen.
--
-- KEYS  1 the devices   2 this one   3 the registry's version
-- ARGV  1 name   2 now, µs   3 what was seen: 'any' whatever it is, 'absent', 'present'
--       4 n, then n × (field, value as it was seen), then fields and their new values; none of these to forget it
-- Returns 1, or 0 if it is not as it was seen.

local call, name, seen, n = redis.call, ARGV[1], ARGV[3], tonumber(ARGV[4])
local DEVICES, DEVICE, VERSION = KEYS[1], KEYS[2], KEYS[3]
local PREFIX = string.sub(DEVICES, 1, -string.len('devices') - 1)

local function children_of(gateway) return PREFIX .. 'children:' .. gateway end
local function token_of(hash) return PREFIX .. 'token:' .. hash end
-- A device that was only heard of has none of its fields.
local function get(field) return call('HGET', DEVICE, field) or (field == 'is_gateway' and '0' or '') end

local is_there = call('ZSCORE', DEVICES, name)
if (seen == 'absent' and is_there) or (seen == 'present' and not is_there) then return 0 end
for at = 5, 3 + 2 * n, 2 do
  if get(ARGV[at]) ~= ARGV[at + 1] then return 0 end
end

local first = 5 + 2 * n
local gateway = get('gateway')
if gateway ~= '' then call('SREM', children_of(gateway), name) end
for hash in string.gmatch(get('tokens'), '%S+') do call('DEL', token_of(hash)) end
if first > #ARGV then
  for _, child in ipairs(call('SMEMBERS', children_of(name))) do call('HSET', PREFIX .. 'device:' .. child, 'gateway', '') end
  call('ZREM', DEVICES, name)
  call('DEL', DEVICE, children_of(name))
else
  call('ZADD', DEVICES, 'NX', ARGV[2], name)
  call('HSET', DEVICE, unpack(ARGV, first))
  gateway = get('gateway')
  if gateway ~= '' then call('SADD', children_of(gateway), name) end
  for hash in string.gmatch(get('tokens'), '%S+') do call('SET', token_of(hash), name) end
end
call('INCR', VERSION)
return 1
