-- What the scripts of the table of commands have in common. KEYS[1] is the partition's zset of commands that have not ended.

local call = redis.call
local TABLE = KEYS[1]
local LEASES, RUN = TABLE .. ':leases', TABLE .. ':run'
local END = 1000000000
local KEPT = 7 * 86400 -- s, how long a command is remembered after its deadline

local function command_key(id) return TABLE .. ':id:' .. id end
local function queue_key(device) return TABLE .. ':queue:' .. device end
local function open_key(device) return TABLE .. ':open:' .. device end
local function history_key(device) return TABLE .. ':of:' .. device end

local function run_id() return (call('INFO', 'server'):match('run_id:(%x+)')) end

-- Put a command where its position says that it belongs. lease: until when the connector, or the device, has time, µs.
local function place(id, lease)
  local position, state, device, created, deadline, idempotent =
    unpack(call('HMGET', command_key(id), 'position', 'state', 'device', 'created', 'deadline', 'idempotent'))
  if not created then return end -- what it is comes later, by the other topic
  position = tonumber(position)
  local step = position % 10
  local is_waiting = position < END and (step == 0 or step == 5)
  local is_open = position < END and step == 1
  if is_waiting then call('ZADD', queue_key(device), created, id) else call('ZREM', queue_key(device), id) end
  if is_open then
    call('SET', open_key(device), id)
  elseif call('GET', open_key(device)) == id then
    call('DEL', open_key(device))
  end
  if is_open or (position < END and not is_waiting and idempotent == '1') then
    call('ZADD', LEASES, lease, id)
  else
    call('ZREM', LEASES, id)
  end
  if position < END then call('ZADD', TABLE, deadline, id) else call('ZREM', TABLE, id) end
  call('PUBLISH', TABLE .. ':live', (is_waiting and 'queued' or is_open and 'claimed' or state) .. ' ' .. device .. ' ' .. id)
end

-- Let it be known that a command is this far, if nothing beyond is known already; tells whether it was not.
local function move(id, position, state, lease, ...)
  local key = command_key(id)
  if tonumber(call('HGET', key, 'position') or '-1') >= position then return false end
  call('HSET', key, 'position', position, 'state', state, ...)
  place(id, lease)
  return true
end

local function expire(id, deadline) return move(id, END, 'expired', 0, 'ended', deadline) end
