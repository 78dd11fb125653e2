-- heartbeat: the owner keeps its lease and learns what is asked of it. -> ok|cancel|timeout|lost
local id, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not owns(id, token) then return 'lost' end
redis.call('ZADD', P .. 'leases', now_ms() + lease_ms, id)
return order_of(id)
