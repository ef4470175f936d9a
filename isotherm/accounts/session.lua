-- Tells who a session belongs to, and what they may do now; puts its end off when it is in use.
-- KEYS: the session (hash). ARGV: time in ms, idle time-out in ms, least ms between two notes, prefix of users' keys.
-- The user's key is made here: it has the same hash tag.
local held = redis.call('HMGET', KEYS[1], 'user', 'seen', 'expires')
if not held[1] then return false end
local now = tonumber(ARGV[1])
if now >= tonumber(held[3]) then return false end
local user = redis.call('HMGET', ARGV[4] .. held[1], 'role', 'disabled', 'must_change')
if not user[1] or user[2] == '1' then return false end
if now - tonumber(held[2]) >= tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], 'seen', ARGV[1])
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.min(now + tonumber(ARGV[2]), tonumber(held[3]))))
end
return {held[1], user[1], user[3] or '0'}
