-- submit: record a new job and queue it, once per idempotency key. -> {created|replayed|mismatch, id}
local a = cjson.decode(ARGV[1])
local f = a.fields
-- The client repeats a call whose answer was lost: the job is there already, maybe at work.
if redis.call('EXISTS', job_key(f.id)) == 1 then return {'created', f.id} end
if a.idempotency_key ~= '' then
  local key = P .. 'idem:' .. f.tenant .. ':' .. a.idempotency_key
  local seen = redis.call('HMGET', key, 'hash', 'id')
  if seen[1] then
    return {seen[1] == a.request_hash and 'replayed' or 'mismatch', seen[2]}
  end
  redis.call('HSET', key, 'hash', a.request_hash, 'id', f.id)
  redis.call('PEXPIRE', key, a.idempotency_ttl_ms)
end
-- No two jobs share a millisecond, so that age orders them and a page can go on after any of them.
local now = math.max(now_ms(), (tonumber(redis.call('GET', P .. 'newest')) or 0) + 1)
redis.call('SET', P .. 'newest', now)
local flat = {'created_at', now, 'status', 'queued', 'status_reason', a.reason, 'attempt', 0, 'recoveries', 0,
  'round', 0, 'start_within_ms', a.start_within_ms, 'token', '', 'worker', '', 'stop', '', 'run_ms', 0}
for name, value in pairs(f) do
  flat[#flat + 1] = name
  flat[#flat + 1] = value
end
redis.call('HSET', job_key(f.id), unpack(flat))
redis.call('ZADD', P .. 'idx:' .. f.tenant, now, f.id)
index_status(f.tenant, f.id, now, nil, 'queued')
for _, tag in ipairs(a.tags) do redis.call('ZADD', P .. 'idx:' .. f.tenant .. ':tag:' .. tag, now, f.id) end
if a.start_within_ms > 0 then redis.call('ZADD', P .. 'deadlines', now + a.start_within_ms, f.id) end
event(f.id, 'state', 'info', a.reason, '{"status":"queued"}')
redis.call('HINCRBY', P .. 'totals', 'submitted', 1)
enqueue(f.id)
return {'created', f.id}
