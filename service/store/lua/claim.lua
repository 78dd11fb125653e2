-- claim: give the next waiting job of these classes to one worker under a new fencing token. -> {id, token, attempt} or {}
local worker, lease_ms, nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3]

-- The tenant with the fewest running jobs goes first; among equals the one whose head has waited longest.
local function next_tenant(class)
  local best, best_running, best_score
  for _, tenant in ipairs(redis.call('SMEMBERS', P .. 'tenants:' .. class)) do
    local head = redis.call('ZRANGE', P .. 'queue:' .. class .. ':' .. tenant, 0, 0, 'WITHSCORES')
    local running = tonumber(redis.call('HGET', P .. 'running', tenant) or '0')
    local score = tonumber(head[2])
    if head[1] and (not best or running < best_running or (running == best_running and score < best_score)) then
      best, best_running, best_score = tenant, running, score
    end
  end
  return best
end

for i = 4, #ARGV do
  local class = ARGV[i]
  local tenant = next_tenant(class)
  if tenant then
    local id = redis.call('ZRANGE', P .. 'queue:' .. class .. ':' .. tenant, 0, 0)[1]
    local now = now_ms()
    local j = get(id, 'started_at', 'round', 'wall_ms', 'run_ms')
    local since = redis.call('ZSCORE', P .. 'waiting:' .. class, id)
    dequeue(id)
    local token = redis.call('INCR', P .. 'token') .. ':' .. nonce
    local attempt = redis.call('HINCRBY', job_key(id), 'attempt', 1)
    redis.call('HSET', job_key(id), 'token', token, 'worker', worker, 'attempt_started_at', now,
      'started_at', j[1] or now, 'progress', '')
    redis.call('HSET', attempt_key(id, attempt), 'worker', worker, 'started_at', now, 'outcome', 'running',
      'first_round', j[2] + 1)
    redis.call('ZADD', P .. 'leases', now + lease_ms, id)
    redis.call('ZADD', P .. 'deadlines', now + math.max(0, j[3] - j[4]), id)
    redis.call('HINCRBY', P .. 'running', tenant, 1)
    set_status(id, 'running', 'Attempt ' .. attempt .. ' began on worker ' .. worker .. '.')
    return {id, token, attempt, now - (tonumber(since) or now)}
  end
end
return {}
