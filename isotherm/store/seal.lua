-- Put the sealed form of chunks in the place of the open one, of each that is still as it was when it was read.
--
-- KEYS  1 late, then per chunk: open, sealed
-- ARGV  per chunk: name in `late`, SHA-1 of the open bytes, SHA-1 of the sealed ones or '', new sealed bytes, expiry ms
-- Returns how many were replaced. The others got data meanwhile: they are sealed another time.

local call = redis.call
local replaced = 0

for i = 1, (#KEYS - 1) / 2 do
  local open, sealed, at = KEYS[2 * i], KEYS[2 * i + 1], 5 * (i - 1)
  local rows, before = call('GET', open), call('GET', sealed)
  if rows and redis.sha1hex(rows) == ARGV[at + 2] and (before and redis.sha1hex(before) or '') == ARGV[at + 3] then
    call('SET', sealed, ARGV[at + 4], 'PXAT', ARGV[at + 5])
    call('DEL', open)
    call('SREM', KEYS[1], ARGV[at + 1])
    replaced = replaced + 1
  elseif not rows then -- expired, or sealed by another
    call('SREM', KEYS[1], ARGV[at + 1])
  end
end
return replaced
