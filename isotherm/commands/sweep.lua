-- Do what time brings about, and tell a follower of the topics whether the table may lack what is in them.
--
-- KEYS  1 the partition's commands (see table.lua)
-- ARGV  1 now, µs   2 run id under which the follower has just read all of the topics, else ''
-- Returns {run id, 1 if all was read since this server has its data, else 0}.

local now, run = tonumber(ARGV[1]), run_id()
if ARGV[2] == run then call('SET', RUN, run) end
for _, id in ipairs(call('ZRANGEBYSCORE', TABLE, '-inf', now, 'LIMIT', 0, 200)) do
  if not expire(id, call('HGET', command_key(id), 'deadline') or now) then call('ZREM', TABLE, id) end
end
for _, id in ipairs(call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 200)) do
  local attempt, idempotent = unpack(call('HMGET', command_key(id), 'attempt', 'idempotent'))
  if not attempt then
    call('ZREM', LEASES, id)
  elseif idempotent == '1' then
    move(id, 10 * tonumber(attempt) + 5, 'queued', 0)
  else
    move(id, END, 'failed', 0, 'ended', now, 'error',
      'the connector ended while it gave the command to the device, which may have got it')
  end
end
return { run, call('GET', RUN) == run and 1 or 0 }
