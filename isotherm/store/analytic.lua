-- Commit what an analytic made of some records, or nothing: compare-and-swap on its version, then all of it.
--
-- KEYS  1 the analytic's hash   2 state   3 numbers   4 events
-- ARGV  1 expected version ('' when there is none yet)   2 the new one   3 log   4 next offset ('' when it has read nothing of this log)
--       5 mark of the last record   6 outbox   7 number of the next event   8 greatest length of events
--       then how many: 9 rows r   10 keys that are gone g   11 numbers n   12 events e
--       then r × (key, row), g × key, n × (series, number), e × JSON
-- Returns {1} when committed, by this call or before, {0} when another version is there.

local call = redis.call
local found = call('HGET', KEYS[1], 'version') or ''
if found == ARGV[2] then return {1} end
if found ~= ARGV[1] then return {0} end

local at = 13

local function many(command, key, count, width) -- Lua's stack bounds how many arguments a call takes
  local left = tonumber(count) * width
  while left > 0 do
    local some = math.min(left, 2000)
    call(command, key, unpack(ARGV, at, at + some - 1))
    at, left = at + some, left - some
  end
end

many('HSET', KEYS[2], ARGV[9], 2)
many('HDEL', KEYS[2], ARGV[10], 1)
many('HSET', KEYS[3], ARGV[11], 2)
for _ = 1, tonumber(ARGV[12]) do
  call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[8], '*', 'e', ARGV[at])
  at = at + 1
end
call('HSET', KEYS[1], 'version', ARGV[2], 'log', ARGV[3], 'next', ARGV[4], 'mark', ARGV[5],
  'outbox', ARGV[6], 'event', ARGV[7])
return {1}
