-- Hold a rollout, or have it go on.
--
-- KEYS  1 the partition's devices that are due (see table.lua)
-- ARGV  1 rollout   2 now, µs   3 what: 'halt' gives nothing more to devices that have not reported; 'resume' does again;
--       'retry' gives it again to those that could not, or have something else
-- Returns how many devices that were.

local rollout, now, what = ARGV[1], ARGV[2], ARGV[3]
local states = what == 'retry' and { 'failed', 'drifted' } or { 'pending', 'sent' }
local count = 0
for _, state in ipairs(states) do
  for _, device in ipairs(call('ZRANGE', members_key(rollout, state), 0, -1)) do
    if get(device, 'rollout') == rollout then
      if what == 'halt' then call('ZREM', DUE, device) else push(device, now) end
      count = count + 1
    end
  end
end
return count
