-- reap: take expired leases back; their owners' tokens are void from here on. -> ids
local limit = tonumber(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now_ms(), 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  local worker = get(id, 'worker')[1]
  redis.call('HINCRBY', P .. 'totals', 'leases_lost', 1)
  requeue(id, 'worker_lost', 'Worker ' .. (worker or '?') .. ' was lost: its lease ran out.')
end
return due
