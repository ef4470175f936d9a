-- Hold a rollout, or have it go on.
--
-- KEYS  1 the partition's devices that are due (see table.lua)
-- ARGV  1 rollout   2 now, µs   3 what: 'halt' gives nothing more to devices that have not reported; 'resume' does again;
--       'retry' gives it again to those that could not, or have something else; 'supersede' leaves devices as they are
-- Returns how many devices that were.
--
-- What is remembered of a continuous rollout expires only once it is held.

local rollout, now, what = ARGV[1], ARGV[2], ARGV[3]
local is_end = what == 'halt' or what == 'supersede'
local OPEN = { 'pending', 'sent' }
local about = { halt = OPEN, resume = OPEN, retry = { 'failed', 'drifted' }, supersede = {} }

local function keep_all()
  if call('EXISTS', joined_key(rollout)) == 0 then return end
  if is_end then
    call('EXPIRE', joined_key(rollout), KEPT)
  else
    call('PERSIST', joined_key(rollout))
  end
  for _, state in ipairs(STATES) do keep(rollout, members_key(rollout, state)) end
  keep(rollout, before_key(rollout))
end

-- A worker may be about to give it, and not know yet.
if is_end then call('SET', held_key(rollout), '', 'EX', KEPT) else call('DEL', held_key(rollout)) end
local count = 0
for _, state in ipairs(about[what]) do
  for _, device in ipairs(call('ZRANGE', members_key(rollout, state), 0, -1)) do
    if get(device, 'rollout') == rollout then
      if what == 'halt' then call('ZREM', DUE, device) else push(device, now) end
      count = count + 1
    end
  end
end
keep_all()
return count
