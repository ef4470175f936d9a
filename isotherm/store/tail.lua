-- Read what has come into chunks of raw points after a cursor.
--
-- KEYS  per chunk: open, sealed
-- ARGV  per chunk: bytes of points read before, in order of arrival
-- Returns per chunk {sealed bytes or '', open bytes}: the sealed ones only if not all of their points were read, and then all
-- of the open ones; else those of the open ones that were not read.

local call = redis.call
local POINT = 16
local found = {}

for i = 1, #KEYS / 2 do
  local open, sealed, read = KEYS[2 * i - 1], KEYS[2 * i], tonumber(ARGV[i])
  local head = call('GETRANGE', sealed, 0, 4)
  local before = 0
  if head ~= '' then before = select(2, struct.unpack('<BI4', head)) * POINT end
  if read >= before then
    found[i] = { '', call('GETRANGE', open, read - before, -1) }
  else
    found[i] = { call('GET', sealed), call('GETRANGE', open, 0, -1) }
  end
end
return found
