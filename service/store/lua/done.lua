-- done: tick a steward's chore off if it is still the one that was seen. -> 1 or 0
local key = P .. ARGV[1]
if tonumber(redis.call('ZSCORE', key, ARGV[2]) or '-1') ~= tonumber(ARGV[3]) then return 0 end
return redis.call('ZREM', key, ARGV[2])
