-- What both scripts that write chunks do. Slots are rows of 44 bytes, ascending by their index; two of one index are merged.

local SLOT = 44
local FORMAT = '<I4I4I4dddd'
local call = redis.call
local unpack_, pack_, sub = struct.unpack, struct.pack, string.sub

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

local function add_slots(key, bytes, expiry) -- into an open chunk, which begins to expire when it is new
  local tail = call('GETRANGE', key, -SLOT, -1)
  if tail == '' then
    call('SET', key, bytes, 'PXAT', expiry)
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
end

local function mark_chunks(first, counts, at) -- as open and as late: names from argument `at` on, into two sets
  for k = 0, 1 do
    for _ = 1, tonumber(ARGV[counts + k]) do
      call('SADD', KEYS[first + k], ARGV[at])
      at = at + 1
    end
  end
end

