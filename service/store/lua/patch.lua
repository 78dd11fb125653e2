-- patch: set tags, and the priority of a job that waits. -> {'ok'|'conflict', status}
local a = cjson.decode(ARGV[1])
local j = get(a.id, 'tenant', 'created_at', 'status', 'device')
if not j[3] then return {'conflict', false} end
local waits = j[3] == 'queued' or j[3] == 'recovering'
if a.priority >= 0 and not waits then return {'conflict', j[3]} end
if a.set_tags then
  for _, tag in ipairs(a.old_tags) do redis.call('ZREM', P .. 'idx:' .. j[1] .. ':tag:' .. tag, a.id) end
  for _, tag in ipairs(a.tags) do redis.call('ZADD', P .. 'idx:' .. j[1] .. ':tag:' .. tag, j[2], a.id) end
  redis.call('HSET', job_key(a.id), 'tags', a.tags_json)
end
if a.priority >= 0 then
  redis.call('HSET', job_key(a.id), 'priority', a.priority)
  redis.call('ZADD', P .. 'queue:' .. j[4] .. ':' .. j[1], rank(a.priority, j[2]), a.id)
end
return {'ok', j[3]}
