-- expire: waiting jobs past their start deadline expire; running ones past their wall time are told to stop. -> ids
local limit = tonumber(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', now_ms(), 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  redis.call('ZREM', P .. 'deadlines', id)
  local status = get(id, 'status')[1]
  if status == 'queued' or status == 'recovering' then
    dequeue(id)
    terminate(id, 'expired', 'No worker took the job within budget.start_within_s.', '')
  elseif status == 'running' then
    redis.call('HSET', job_key(id), 'stop', 'timeout')
    event(id, 'message', 'warning', 'The wall time of the budget is used up: the worker was told to stop.')
  end
end
return due
