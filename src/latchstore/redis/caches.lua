local function caches() return nil, '' end
local function overtake() end
