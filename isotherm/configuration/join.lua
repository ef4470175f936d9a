-- Enter devices that a continuous rollout is for, unless they were before.
--
-- KEYS  1 the partition's devices that are due (see table.lua)
-- ARGV  1 rollout   2 the wave that they wait for   3… device, when it was registered, µs; device, …
-- Returns those that are to be given it: the new ones, and who was entered by somebody who did not come to giving it.
--
-- Who was registered at another time is another device of the same name.

local rollout, wave = ARGV[1], ARGV[2]
local found = {}
for at = 3, #ARGV, 2 do
  local device, registered = ARGV[at], ARGV[at + 1]
  if tonumber(call('ZSCORE', joined_key(rollout), device) or 0) ~= tonumber(registered) then
    call('ZADD', joined_key(rollout), registered, device)
    enter(rollout, device, 'waiting', wave)
  end
  if tonumber(call('ZSCORE', members_key(rollout, 'waiting'), device) or -1) == tonumber(wave) then found[#found + 1] = device end
end
return found
