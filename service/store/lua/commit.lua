-- commit: the owner adds the next round, and its checkpoint when it held; rounds that did not hold may be tried
-- again, and a repeat is accepted. -> 1, or 0 for a stale owner
local id, token, number, round, checkpoint, message = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
if not owns(id, token) then return 0 end
local j = get(id, 'round', 'tried')
local held = tonumber(j[1])
local tried = tonumber(j[2] or j[1])
local stored = redis.call('HGET', P .. 'rounds:' .. id, number)
if stored and string.sub(stored, string.find(stored, '|', 1, true) + 1) == round then return 1 end
if number <= held or number > tried + 1 then
  return redis.error_reply('ROUND_ORDER round ' .. number .. ' after round ' .. tried)
end
redis.call('HSET', P .. 'rounds:' .. id, number, now_ms() .. '|' .. round)
redis.call('HSET', job_key(id), 'tried', number)
if checkpoint ~= '' then redis.call('HSET', job_key(id), 'round', number, 'checkpoint', checkpoint) end
event(id, 'round', checkpoint == '' and 'warning' or 'info', message, round)
return 1
