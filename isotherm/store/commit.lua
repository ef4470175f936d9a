-- Apply one batch of one partition, or nothing: compare-and-swap on the offset, then every write of the batch.
--
-- KEYS  1 progress, 2 latest, 3 units, 4 stored, 5 attributes, 6 windows, 7 duplicates, 8 open, 9 late,
--       10.. chunks: first the raw ones', then the slots'
-- ARGV  1 expected offset ('' when there is no progress yet)   2 next offset   3 mark of the last record   4 live channel
--       then how many: 5 raw chunks w   6 runs of slots r   7 series s in `latest`   8 units u   9 windows v
--                      10 stored c   11 duplicates d   12 attributes a   13 open chunks o   14 late chunks l
--       then w × bytes, r × (expiry ms, bytes), s names, s latest records in one string, u × (series, unit),
--       v × (series, window), c × (connector, n), d × (connector, n), a × (series, record), o names, l names
-- Returns {1} when applied, {0, offset found or ''} when not.
--
-- See layout.py for the records, merge.lua for slots.

local LATEST = 24

local found = call('HGET', KEYS[1], 'next') or ''
if found ~= ARGV[1] then return {0, found} end

local at, key = 15, 10

for _ = 1, tonumber(ARGV[5]) do
  call('APPEND', KEYS[key], ARGV[at])
  key, at = key + 1, at + 1
end
for _ = 1, tonumber(ARGV[6]) do
  add_slots(KEYS[key], ARGV[at + 1], ARGV[at])
  key, at = key + 1, at + 2
end

local series, records = tonumber(ARGV[7]), ARGV[at + tonumber(ARGV[7])]
for from = 0, series - 1, 1000 do -- Lua's stack bounds how many arguments a call takes
  local names, writes = {}, {}
  for i = from, math.min(from + 1000, series) - 1 do names[#names + 1] = ARGV[at + i] end
  local held = call('HMGET', KEYS[2], unpack(names))
  for i, name in ipairs(names) do
    local record = sub(records, (from + i - 1) * LATEST + 1, (from + i) * LATEST)
    if not held[i] or (unpack_('<i8', record)) >= (unpack_('<i8', held[i])) then
      writes[#writes + 1] = name
      writes[#writes + 1] = record
    end
  end
  if #writes > 0 then call('HSET', KEYS[2], unpack(writes)) end
end
at = at + series + 1

local function each_pair(command, key, count)
  for _ = 1, tonumber(count) do
    call(command, key, ARGV[at], ARGV[at + 1])
    at = at + 2
  end
end

each_pair('HSET', KEYS[3], ARGV[8])
each_pair('HSET', KEYS[6], ARGV[9])
each_pair('HINCRBY', KEYS[4], ARGV[10])
each_pair('HINCRBY', KEYS[7], ARGV[11])
for _ = 1, tonumber(ARGV[12]) do
  local held = call('HGET', KEYS[5], ARGV[at])
  if not held or (unpack_('<i8', ARGV[at + 1])) >= (unpack_('<i8', held)) then
    call('HSET', KEYS[5], ARGV[at], ARGV[at + 1])
  end
  at = at + 2
end

mark_chunks(8, 13, at)

call('HSET', KEYS[1], 'next', ARGV[2], 'mark', ARGV[3])
call('PUBLISH', ARGV[4], ARGV[2])
return {1}
