-- Apply one batch of one partition, or nothing: compare-and-swap on the offset, then every write of the batch.
--
-- KEYS  1 progress, 2 latest, 3 units, 4 stored, 5 attributes, 6 windows, 7 duplicates, 8 late,
--       9.. chunks: first the rollups', then the raw ones'
-- ARGV  1 expected offset ('' when there is no progress yet)   2 next offset   3 mark of the last record   4 live channel
--       then how many: 5 rollup chunks r   6 raw chunks w   7 series s in `latest`   8 units u   9 windows v
--                      10 stored c   11 duplicates d   12 attributes a   13 late chunks l
--       then per chunk (expiry ms, bytes), s names, s latest records in one string, u × (series, unit), v × (series, window),
--       c × (connector, n), d × (connector, n), a × (series, record), l names
-- Returns {1} when applied, {0, offset found or ''} when not.
--
-- See layout.py for the records. A slot of the batch is a delta: it is merged into the slot that is there.

local SLOT, LATEST = 44, 24
local FORMAT = '<I4I4I4dddd'
local call = redis.call
local unpack_, pack_, sub = struct.unpack, struct.pack, string.sub

local found = call('HGET', KEYS[1], 'next') or ''
if found ~= ARGV[1] then return {0, found} end

local function index_at(bytes, i) -- of the i-th slot, from 0
  return (unpack_('<I4', bytes, i * SLOT + 1))
end

local function merged(a, b) -- two records of one slot; b came later
  local index, n, at, sum, min, max, last = unpack_(FORMAT, a)
  local _, n2, at2, sum2, min2, max2, last2 = unpack_(FORMAT, b)
  if at2 >= at then at, last = at2, last2 end
  if min2 < min then min = min2 end
  if max2 > max then max = max2 end
  return pack_(FORMAT, index, n + n2, at, sum + sum2, min, max, last)
end

local function slot(bytes, i) return sub(bytes, i * SLOT + 1, (i + 1) * SLOT) end

local function join(old, new) -- two ascending runs of slots into one
  local out, i, j, n, m = {}, 0, 0, #old / SLOT, #new / SLOT
  while i < n and j < m do
    local a, b = index_at(old, i), index_at(new, j)
    if a < b then out[#out + 1] = slot(old, i); i = i + 1
    elseif b < a then out[#out + 1] = slot(new, j); j = j + 1
    else out[#out + 1] = merged(slot(old, i), slot(new, j)); i = i + 1; j = j + 1 end
  end
  out[#out + 1] = sub(old, i * SLOT + 1)
  out[#out + 1] = sub(new, j * SLOT + 1)
  return table.concat(out)
end

local at, first = 14, 9
local rollups, raws = tonumber(ARGV[5]), tonumber(ARGV[6])

for k = first, first - 1 + rollups do
  local key, bytes = KEYS[k], ARGV[at + 1]
  local tail = call('GETRANGE', key, -SLOT, -1)
  if tail == '' then
    call('SET', key, bytes, 'PXAT', ARGV[at])
  else
    local have, comes = index_at(tail, 0), index_at(bytes, 0)
    if comes > have then
      call('APPEND', key, bytes)
    elseif comes == have then
      call('SETRANGE', key, call('STRLEN', key) - SLOT, merged(tail, bytes) .. sub(bytes, SLOT + 1))
    else
      call('SET', key, join(call('GET', key), bytes), 'KEEPTTL')
    end
  end
  at = at + 2
end

for k = first + rollups, first - 1 + rollups + raws do
  local bytes = ARGV[at + 1]
  if call('APPEND', KEYS[k], bytes) == #bytes then call('PEXPIREAT', KEYS[k], ARGV[at]) end
  at = at + 2
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

for _ = 1, tonumber(ARGV[13]) do
  call('SADD', KEYS[8], ARGV[at])
  at = at + 1
end

call('HSET', KEYS[1], 'next', ARGV[2], 'mark', ARGV[3])
call('PUBLISH', ARGV[4], ARGV[2])
return {1}
