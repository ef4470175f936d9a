-- Take up the first command that waits for a device, before it is given to it.
--
-- KEYS  1 the partition's commands (see table.lua)
-- ARGV  1 device   2 now, µs   3 end of the lease, µs   4 connector
-- Returns {'stale'} while nobody knows whether the table has all that is in the log, {'none'}, or {id, fields}.

local device, now = ARGV[1], tonumber(ARGV[2])
if call('GET', RUN) ~= run_id() then return { 'stale' } end
if call('EXISTS', open_key(device)) == 1 then return { 'none' } end
while true do
  local id = call('ZRANGE', queue_key(device), 0, 0)[1]
  if not id then return { 'none' } end
  local key = command_key(id)
  local deadline = tonumber(call('HGET', key, 'deadline') or '0')
  if deadline == 0 then
    call('ZREM', queue_key(device), id)
  elseif deadline <= now then
    expire(id, deadline)
  else
    local attempt = call('HINCRBY', key, 'attempt', 1)
    move(id, 10 * attempt + 1, 'queued', ARGV[3], 'via', ARGV[4])
    return { id, call('HGETALL', key) }
  end
end
