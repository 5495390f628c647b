-- Where a fact of entries stands in an index: eight bytes in the order of numbers, as ``positions.py`` has them.
local place_of_fact = {created = 1, modified = 9, revision = 17}

local function fact_position(times, fact)
  local place = place_of_fact[fact]
  local bytes = string.sub(times, place, place + 7)
  local first = string.byte(bytes)
  if first < 128 then return string.char(first + 128) .. string.sub(bytes, 2) end
  -- Negative numbers are in the reverse order of their bytes.
  return (string.gsub(bytes, '.', function(each) return string.char(255 - string.byte(each)) end))
end
