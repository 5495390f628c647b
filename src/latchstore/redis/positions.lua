-- Where a fact of entries stands in an index: eight bytes in the order of numbers, as ``positions.py`` has them.
local number_of_fact = {created = 1, modified = 2, revision = 3}

local function fact_position(times, fact)
  local value = select(number_of_fact[fact], string.match(times, '^(%S+) (%S+) (%S+)$'))
  local bytes = struct.pack('>d', tonumber(value))
  local first = string.byte(bytes)
  if first < 128 then return string.char(first + 128) .. string.sub(bytes, 2) end
  -- Negative numbers are in the reverse order of their bytes.
  return (string.gsub(bytes, '.', function(each) return string.char(255 - string.byte(each)) end))
end
