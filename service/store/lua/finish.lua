-- finish: the owner ends the job for good; a cancel that came first wins. -> the terminal status, or 'lost'
local a = cjson.decode(ARGV[1])
if not owns(a.id, a.token) then return 'lost' end
local stop = get(a.id, 'stop')[1]
local status, reason, class = a.status, a.reason, a.failure_class
if stop == 'cancel' then status, reason, class = 'cancelled', 'Cancelled by the user.', '' end
leave(a.id, status, reason)
if status == 'succeeded' then
  redis.call('HSET', job_key(a.id), 'summary', a.summary, 'manifest', a.manifest)
end
terminate(a.id, status, reason, class)
return status
