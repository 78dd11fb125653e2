-- Shared by every script. KEYS[1] is the key prefix; all keys share its hash tag, so a Cluster keeps them on one node.
local P = KEYS[1]

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function job_key(id) return P .. 'job:' .. id end
local function attempt_key(id, n) return P .. 'attempt:' .. id .. ':' .. n end

local function get(id, ...)
  return redis.call('HMGET', job_key(id), ...)
end

local function event(id, kind, level, message, data)
  redis.call('XADD', P .. 'events:' .. id, 'MAXLEN', '~', 10000, '*',
    'type', kind, 'level', level, 'message', message, 'data', data or '{}')
end

local function index_status(tenant, id, created, old, new)
  if old then
    redis.call('ZREM', P .. 'idx:' .. tenant .. ':status:' .. old, id)
    redis.call('HINCRBY', P .. 'counts', old, -1)
  end
  if new then
    redis.call('ZADD', P .. 'idx:' .. tenant .. ':status:' .. new, created, id)
    redis.call('HINCRBY', P .. 'counts', new, 1)
  end
end

local function set_status(id, new, reason)
  local j = get(id, 'tenant', 'created_at', 'status')
  index_status(j[1], id, j[2], j[3], new)
  redis.call('HSET', job_key(id), 'status', new, 'status_reason', reason)
  event(id, 'state', new == 'failed' and 'error' or 'info', reason, '{"status":"' .. new .. '"}')
end

-- Higher priority first, then age. A job that comes back keeps its age, so it goes before younger ones.
local function rank(priority, created)
  return (9 - tonumber(priority)) * 4e12 + tonumber(created)
end

local function enqueue(id)
  local j = get(id, 'tenant', 'created_at', 'device', 'priority')
  redis.call('ZADD', P .. 'queue:' .. j[3] .. ':' .. j[1], rank(j[4], j[2]), id)
  redis.call('ZADD', P .. 'waiting:' .. j[3], now_ms(), id)
  redis.call('ZADD', P .. 'demand:' .. j[3], j[2], id)
  redis.call('SADD', P .. 'tenants:' .. j[3], j[1])
end

local function dequeue(id)
  local j = get(id, 'tenant', 'device')
  local queue = P .. 'queue:' .. j[2] .. ':' .. j[1]
  redis.call('ZREM', queue, id)
  redis.call('ZREM', P .. 'waiting:' .. j[2], id)
  if redis.call('EXISTS', queue) == 0 then redis.call('SREM', P .. 'tenants:' .. j[2], j[1]) end
end

-- Ends the running attempt: no owner, no lease, its time added to the job's.
local function leave(id, outcome, reason)
  local j = get(id, 'tenant', 'attempt', 'attempt_started_at', 'run_ms', 'device')
  local now = now_ms()
  redis.call('HSET', attempt_key(id, j[2]), 'ended_at', now, 'outcome', outcome, 'reason', reason)
  redis.call('HSET', job_key(id), 'token', '', 'worker', '',
    'run_ms', (tonumber(j[4]) or 0) + now - (tonumber(j[3]) or now))
  redis.call('ZREM', P .. 'leases', id)
  redis.call('ZREM', P .. 'deadlines', id)
  redis.call('HINCRBY', P .. 'running', j[1], -1)
end

local function terminate(id, status, reason, failure_class)
  local device = get(id, 'device')[1]
  redis.call('HSET', job_key(id), 'finished_at', now_ms(), 'failure_class', failure_class, 'stop', '')
  redis.call('ZREM', P .. 'demand:' .. device, id)
  redis.call('ZREM', P .. 'deadlines', id)
  redis.call('ZADD', P .. 'archive', now_ms(), id)
  redis.call('HINCRBY', P .. 'totals', 'finished:' .. status .. ':' .. failure_class, 1)
  set_status(id, status, reason)
end

-- After an attempt that did not end the job: cancelled if that was asked, failed if it is poison, else waiting again.
local function requeue(id, outcome, reason)
  local j = get(id, 'stop', 'recoveries', 'max_recoveries')
  if j[1] == 'cancel' then
    leave(id, 'cancelled', 'Cancelled by the user.')
    return terminate(id, 'cancelled', 'Cancelled by the user.', '')
  elseif j[1] == 'timeout' then
    leave(id, 'failed', 'The wall time of the budget is used up.')
    return terminate(id, 'failed', 'The wall time of the budget is used up: raise budget.wall_time_s.', 'timeout')
  end
  leave(id, outcome, reason)
  if outcome == 'released' then
    set_status(id, 'queued', reason)
    return enqueue(id)
  end
  local recoveries = redis.call('HINCRBY', job_key(id), 'recoveries', 1)
  redis.call('HINCRBY', P .. 'totals', 'recoveries', 1)
  if recoveries > tonumber(j[3]) then
    return terminate(id, 'failed', 'Lost ' .. recoveries .. ' workers, more than retry.max_recoveries allows. Last: '
      .. reason, 'worker_lost')
  end
  set_status(id, 'recovering', reason)
  enqueue(id)
end

local function owns(id, token)
  local j = get(id, 'token', 'status')
  return j[1] and j[1] ~= '' and j[1] == token and (j[2] == 'running' or j[2] == 'cancelling')
end

-- What the owner is to do: ok, cancel or timeout.
local function order_of(id)
  local stop = get(id, 'stop')[1]
  if stop and stop ~= '' then return stop end
  return 'ok'
end
