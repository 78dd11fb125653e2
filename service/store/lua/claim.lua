-- claim: give the next waiting job of these classes to one worker under a new fencing token. -> {id, token, attempt} or {}
local worker, lease_ms, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3]

-- The client repeats a call whose answer was lost: the same nonce gets the same claim.
local claimed = redis.call('GET', P .. 'claimed:' .. nonce)
if claimed then
  local j = get(claimed, 'token', 'attempt')
  if j[1] and string.sub(j[1], -#nonce) == nonce then return {claimed, j[1], tonumber(j[2]), 0} end
end

-- Over all classes: the tenant with the fewest running jobs, then priority and age, then the scarcer class.
local best
for i = 4, #ARGV do
  for _, tenant in ipairs(redis.call('SMEMBERS', P .. 'tenants:' .. ARGV[i])) do
    local head = redis.call('ZRANGE', P .. 'queue:' .. ARGV[i] .. ':' .. tenant, 0, 0, 'WITHSCORES')
    local running = tonumber(redis.call('HGET', P .. 'running', tenant) or '0')
    local score = tonumber(head[2])
    if head[1] and (not best or running < best.running or (running == best.running and score < best.score)) then
      best = {id = head[1], class = ARGV[i], tenant = tenant, running = running, score = score}
    end
  end
end
if not best then return {} end

local id, now = best.id, now_ms()
local j = get(id, 'started_at', 'round', 'wall_ms', 'run_ms')
local since = redis.call('ZSCORE', P .. 'waiting:' .. best.class, id)
dequeue(id)
local token = redis.call('INCR', P .. 'token') .. ':' .. nonce
local attempt = redis.call('HINCRBY', job_key(id), 'attempt', 1)
redis.call('HSET', job_key(id), 'token', token, 'worker', worker, 'attempt_started_at', now,
  'started_at', j[1] or now, 'progress', '')
redis.call('HSET', attempt_key(id, attempt), 'worker', worker, 'started_at', now, 'outcome', 'running',
  'first_round', j[2] + 1)
redis.call('ZADD', P .. 'leases', now + lease_ms, id)
redis.call('ZADD', P .. 'deadlines', now + math.max(0, j[3] - j[4]), id)
redis.call('HINCRBY', P .. 'running', best.tenant, 1)
redis.call('SET', P .. 'claimed:' .. nonce, id, 'PX', lease_ms)
set_status(id, 'running', 'Attempt ' .. attempt .. ' began on worker ' .. worker .. '.')
return {id, token, attempt, now - (tonumber(since) or now)}
