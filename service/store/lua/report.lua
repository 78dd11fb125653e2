-- report: the owner tells its progress, steps, events and log lines. -> ok|cancel|timeout|lost, as heartbeat
local a = cjson.decode(ARGV[1])
if not owns(a.id, a.token) then return 'lost' end
if a.progress ~= '' then redis.call('HSET', job_key(a.id), 'progress', a.progress) end
if a.steps ~= '' then redis.call('HSET', attempt_key(a.id, get(a.id, 'attempt')[1]), 'steps', a.steps) end
for _, e in ipairs(a.events) do event(a.id, e.type, e.level, e.message, e.data) end
for _, line in ipairs(a.lines) do
  redis.call('XADD', P .. 'logs:' .. a.id, 'MAXLEN', '~', 5000, '*', 'line', line)
end
return order_of(a.id)
