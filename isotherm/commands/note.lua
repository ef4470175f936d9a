-- Take in facts, each of which may have been taken in before.
--
-- KEYS  1 the partition's commands (see table.lua)
-- ARGV  1 id   2 position   3 state   4 lease, µs   5 how many fields that every fact has its own of, n
--       then n × (field, value): kept as they came first, whatever the position
--       then m × (field, value): kept if the position is new, as the state is
-- Returns 1 when more is known now, else 0.

local id, position, state, lease, own = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local key, at = command_key(id), 6
local is_known = call('HEXISTS', key, 'created') == 1
for _ = 1, own do
  call('HSETNX', key, ARGV[at], ARGV[at + 1])
  at = at + 2
end
if not is_known then
  local device, created, deadline = unpack(call('HMGET', key, 'device', 'created', 'deadline'))
  if created then
    call('ZADD', history_key(device), created, id)
    call('ZREMRANGEBYSCORE', history_key(device), '-inf', '(' .. (tonumber(created) - KEPT * 1000000))
    call('EXPIRE', history_key(device), KEPT + 2 * 86400)
    call('EXPIREAT', key, math.floor(tonumber(deadline) / 1000000) + KEPT)
    if tonumber(call('HGET', key, 'position') or '-1') >= position then place(id, lease) end
  else
    call('EXPIRE', key, KEPT)
  end
end
return move(id, position, state, lease, unpack(ARGV, at)) and 1 or 0
