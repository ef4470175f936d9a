-- Let a command end that no connector has taken up.
--
-- KEYS  1 the partition's commands (see table.lua)
-- ARGV  1 id   2 now, µs   3 error
-- Returns 1 when it is so now, 0 when it is too late.

local position = tonumber(call('HGET', command_key(ARGV[1]), 'position') or '-1')
if position < 0 or position >= END or (position % 10 ~= 0 and position % 10 ~= 5) then return 0 end
-- One that was sent, and waits to be sent again, may be done already.
if call('HEXISTS', command_key(ARGV[1]), 'sent') == 1 then return 0 end
move(ARGV[1], END, 'failed', 0, 'ended', ARGV[2], 'error', ARGV[3])
return 1
