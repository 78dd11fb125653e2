-- commit: the owner adds the next round, and its checkpoint when it held; a repeat is accepted. -> 1, or 0 for a stale owner
local id, token, number, round, checkpoint, message = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
if not owns(id, token) then return 0 end
local j = get(id, 'round', 'checkpoint')
if tonumber(j[1]) == number and j[2] == checkpoint then return 1 end
if tonumber(j[1]) ~= number - 1 then
  return redis.error_reply('ROUND_ORDER round ' .. number .. ' after round ' .. j[1])
end
redis.call('HSET', P .. 'rounds:' .. id, number, now_ms() .. '|' .. round)
if checkpoint ~= '' then redis.call('HSET', job_key(id), 'round', number, 'checkpoint', checkpoint) end
event(id, 'round', checkpoint == '' and 'warning' or 'info', message, round)
return 1
