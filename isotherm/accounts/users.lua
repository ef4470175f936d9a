-- Creates, changes or removes a user, and leaves one admin who can log in with a password.
-- KEYS: all users (zset), the user (hash), the admins (set). ARGV: what, name, time in µs, n, then n × (field, value as it was
-- seen), then fields and values.
local what, name = ARGV[1], ARGV[2]
local exists = redis.call('EXISTS', KEYS[2]) == 1
if what == 'first' and redis.call('ZCARD', KEYS[1]) > 0 then return 'taken' end
if what == 'create' and exists then return 'taken' end
if (what == 'change' or what == 'remove') and not exists then return 'absent' end

local seen = tonumber(ARGV[4])
for i = 5, 3 + 2 * seen, 2 do
  if (redis.call('HGET', KEYS[2], ARGV[i]) or '') ~= ARGV[i + 1] then return 'changed' end
end
local fields = {}
for i = 5 + 2 * seen, #ARGV, 2 do fields[ARGV[i]] = ARGV[i + 1] end
local function will_be(field)
  if fields[field] then return fields[field] end
  return redis.call('HGET', KEYS[2], field) or ''
end
local is_admin = what ~= 'remove' and will_be('role') == 'admin' and will_be('disabled') ~= '1' and will_be('subject') == ''
if not is_admin and redis.call('SISMEMBER', KEYS[3], name) == 1 and redis.call('SCARD', KEYS[3]) == 1 then return 'last' end

if what == 'remove' then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[1], name)
  redis.call('SREM', KEYS[3], name)
  return 'done'
end
redis.call('HSET', KEYS[2], unpack(ARGV, 5 + 2 * seen))
redis.call('ZADD', KEYS[1], 'NX', ARGV[3], name)
redis.call(is_admin and 'SADD' or 'SREM', KEYS[3], name)
return 'done'
