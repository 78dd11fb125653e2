-- delete: forget a terminal job and hand its folder in S3 to the steward. -> {'ok'|'conflict', status}
local a = cjson.decode(ARGV[1])
local id = a.id
local j = get(id, 'tenant', 'created_at', 'status', 'attempt')
if not j[3] then return {'conflict', false} end
if j[3] ~= 'succeeded' and j[3] ~= 'failed' and j[3] ~= 'cancelled' and j[3] ~= 'expired' then
  return {'conflict', j[3]}
end
index_status(j[1], id, j[2], j[3], nil)
redis.call('ZREM', P .. 'idx:' .. j[1], id)
for _, tag in ipairs(a.tags) do redis.call('ZREM', P .. 'idx:' .. j[1] .. ':tag:' .. tag, id) end
for n = 1, tonumber(j[4]) do redis.call('DEL', attempt_key(id, n)) end
redis.call('DEL', job_key(id), P .. 'events:' .. id, P .. 'logs:' .. id, P .. 'rounds:' .. id)
redis.call('ZREM', P .. 'archive', id)
redis.call('ZADD', P .. 'trash', now_ms(), j[1] .. '/jobs/' .. id .. '/')
return {'ok', j[3]}
