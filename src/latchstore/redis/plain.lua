-- Replaces caches.lua while no cache was ever opened on a namespace.
local caches, overtake
