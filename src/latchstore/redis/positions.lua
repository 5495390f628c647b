-- Positions as in ``positions.py``. Eight bytes of a number, in the order of numbers.
local function in_order(bytes)
  local first = string.byte(bytes)
  if first < 128 then return string.char(first + 128) .. string.sub(bytes, 2) end
  -- The bytes of negative numbers are in reverse order.
  return (string.gsub(bytes, '.', function(each) return string.char(255 - string.byte(each)) end))
end

-- The offsets of facts in the times of an entry.
local place_of_fact = {created = 1, modified = 9, revision = 17}

local function fact_position(times, fact)
  local place = place_of_fact[fact]
  return in_order(string.sub(times, place, place + 7))
end

local function ranked(rank, value)
  return string.char(rank) .. string.gsub(value, '%z', '\0\255') .. '\0'
end

local function text_position(text)
  return ranked(32, text)
end

-- The position of a number that is equal to a float.
local function number_position(value)
  return ranked(24, (string.gsub(in_order(struct.pack('>d', value)), '%z+$', '')))
end
