-- Adds an entry to one of two streams, under an id that is later than all ids of both: read together they have one order.
-- KEYS: the stream, the other one. ARGV: entries that are kept, then fields and values.
local now = redis.call('TIME')
local ms, number = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000), 0
for _, stream in ipairs(KEYS) do
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if last then
    local last_ms, last_number = string.match(last[1], '(%d+)-(%d+)')
    last_ms, last_number = tonumber(last_ms), tonumber(last_number)
    if last_ms > ms then ms, number = last_ms, 0 end
    if last_ms == ms and last_number >= number then number = last_number + 1 end
  end
end
local id = string.format('%.0f-%.0f', ms, number)
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], id, unpack(ARGV, 2))
