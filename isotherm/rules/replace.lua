-- Keep a rule in the place of one, or forget it, if that is as it was seen.
--
-- KEYS  1 the rules   2 how often they were changed
-- ARGV  1 id   2 as it was seen, JSON   3 what is to be, JSON, or '' to forget it
-- Returns 1, or 0 if it is not as it was seen.

local call = redis.call
if call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then call('HDEL', KEYS[1], ARGV[1]) else call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
call('INCR', KEYS[2])
return 1
