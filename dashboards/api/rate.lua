-- Take a request from a token's bucket (GCRA, the bucket as the time at which it is full again).
--
-- KEYS  1 that time, µs
-- ARGV  1 now, µs   2 from one request to the next in the long run, µs   3 how many at once
-- Returns 0, or after how many seconds there will be one to take.

local now, interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local wait = full - (burst - 1) * interval - now
if wait > 0 then return math.ceil(wait / 1e6) end
local after = full + interval
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return 0
