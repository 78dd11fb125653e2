-- release: the owner gives the job back: 'released' on a drain, 'worker_lost' when its child died. -> status, or 'lost'
local id, token, outcome, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not owns(id, token) then return 'lost' end
requeue(id, outcome, reason)
return get(id, 'status')[1]
