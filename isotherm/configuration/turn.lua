-- Say how far a rollout is, and whether workers have to see to it.
--
-- KEYS  1 the rollout   2 those that are running   3 those that are continuous and go on (see rollouts.py)
-- ARGV  1 its id   2 the state that it was seen in, or '' whatever it is   3 how long it is remembered, s
--       4… field, value, field, …; of a new one its record as well
-- Returns 1, or 0 if it was in another state, or is forgotten.

local call, ROLLOUT, id, seen, kept = redis.call, KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local FOREVER = -1 -- what TTL says of a key that does not expire

local function get(field) return call('HGET', ROLLOUT, field) end
local function state() return get('state') or 'running' end

if ARGV[4] ~= 'record' and not get('record') then return 0 end
if seen ~= '' and seen ~= state() then return 0 end
if #ARGV > 3 then call('HSET', ROLLOUT, unpack(ARGV, 4)) end
local is_continuous, is_held = cjson.decode(get('record')).continuous, state() == 'halted'
call(state() == 'running' and 'SADD' or 'SREM', KEYS[2], id)
if is_continuous and not is_held then
  call('SADD', KEYS[3], id)
  call('PERSIST', ROLLOUT)
elseif is_continuous or call('TTL', ROLLOUT) == FOREVER then
  call('SREM', KEYS[3], id)
  call('EXPIRE', ROLLOUT, kept)
end
return 1
