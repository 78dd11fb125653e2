-- cancel: a waiting job is cancelled at once, a running one is told to stop; a repeat changes nothing. -> {"ok"|"conflict", status}
local id = ARGV[1]
local status = get(id, 'status')[1]
if status == 'queued' or status == 'recovering' then
  dequeue(id)
  terminate(id, 'cancelled', 'Cancelled by the user.', '')
  return {'ok', 'cancelled'}
elseif status == 'running' then
  redis.call('HSET', job_key(id), 'stop', 'cancel')
  set_status(id, 'cancelling', 'The worker was told to stop.')
  return {'ok', 'cancelling'}
elseif status == 'cancelling' or status == 'cancelled' then
  return {'ok', status}
end
return {'conflict', status}
