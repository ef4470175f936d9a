-- Put the sealed form of chunks in the place of the open one, and roll raw ones up, of each that is still as it was read.
--
-- KEYS  1 open, 2 late, then per chunk: its open rows, its sealed ones, and the chunks of r runs of slots
-- ARGV  1 chunks n   2 open chunks o   3 late chunks l   then per chunk: name in `late`, SHA-1 of the open rows, SHA-1 of the
--       sealed ones or '', new sealed ones, expiry ms, r, r × (expiry ms, bytes); then o names, l names
-- Returns how many were replaced. The others got data meanwhile: they are sealed another time.

local replaced, at, key = 0, 4, 3

for _ = 1, tonumber(ARGV[1]) do
  local member, rows_are, sealed_is, whole, expiry, runs = unpack(ARGV, at, at + 5)
  local rows, sealed = call('GET', KEYS[key]), call('GET', KEYS[key + 1])
  at, runs = at + 6, tonumber(runs)
  if rows and redis.sha1hex(rows) == rows_are and (sealed and redis.sha1hex(sealed) or '') == sealed_is then
    call('SET', KEYS[key + 1], whole, 'PXAT', expiry)
    call('DEL', KEYS[key])
    for run = 1, runs do add_slots(KEYS[key + 1 + run], ARGV[at + 2 * run - 1], ARGV[at + 2 * run - 2]) end
    replaced = replaced + 1
    rows = nil
  end
  if not rows then call('SREM', KEYS[2], member) end -- sealed, or there was nothing
  at, key = at + 2 * runs, key + 2 + runs
end

mark_chunks(1, 2, at)
return replaced
