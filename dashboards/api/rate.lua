-- Take a request from a token's bucket (GCRA, the bucket as the time at which it is full again).
--
-- The clock is the store's: those who ask do not come in the order of theirs.
--
-- KEYS  1 that time, µs
-- ARGV  1 from one request to the next in the long run, µs   2 how many at once
-- Returns 0, or after how many seconds there will be one to take.

local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1e6 + tonumber(clock[2])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = full - (burst - 1) * interval - now
if wait > 0 then return math.ceil(wait / 1e6) end
local after = full + interval
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return 0
