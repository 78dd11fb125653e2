-- retry: a job that failed, expired or was cancelled waits again, with its committed rounds. -> {'ok'|'conflict', status}
local id = ARGV[1]
local status = get(id, 'status')[1]
if status ~= 'failed' and status ~= 'cancelled' and status ~= 'expired' then return {'conflict', status} end
redis.call('HSET', job_key(id), 'recoveries', 0, 'run_ms', 0, 'stop', '')
redis.call('HDEL', job_key(id), 'failure_class', 'finished_at')
redis.call('ZREM', P .. 'archive', id)
set_status(id, 'queued', 'Queued again by the user.')
enqueue(id)
local within = tonumber(get(id, 'start_within_ms')[1])
if within > 0 then redis.call('ZADD', P .. 'deadlines', now_ms() + within, id) end
return {'ok', 'queued'}
