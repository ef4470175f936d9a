-- Begin a request that has an Idempotency-Key.
--
-- KEYS  1 what is known of it (see once.py)
-- ARGV  1 hash of the request   2 now, µs   3 how long it keeps others out, µs   4 how long it is kept, s
-- Returns 1 if it is to be done, else 0; and what is known of it then.

local call, key, now = redis.call, KEYS[1], tonumber(ARGV[2])
local state = call('HGET', key, 'state')
local is_open = state == 'open' or (state == 'working' and tonumber(call('HGET', key, 'until')) < now)
local is_first = not state or (is_open and call('HGET', key, 'request') == ARGV[1])
if is_first then
  call('HSETNX', key, 'began', ARGV[2])
  call('HSET', key, 'request', ARGV[1], 'state', 'working', 'until', string.format('%.0f', now + ARGV[3]))
  call('EXPIRE', key, ARGV[4])
end
return { is_first and 1 or 0, call('HGETALL', key) }
