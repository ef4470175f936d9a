-- Leave devices that wait for a rollout to newer ones.
--
-- KEYS  1 the partition's devices that are due (see table.lua)
-- ARGV  1 rollout   2… devices

for at = 2, #ARGV do
  if call('ZSCORE', members_key(ARGV[1], 'waiting'), ARGV[at]) then enter(ARGV[1], ARGV[at], 'superseded') end
end
