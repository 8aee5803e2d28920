-- Ends a script before it changes anything, while its keys move to another number of shards.
--
-- Comes behind prelude.lua; models/state/shards/stored_layout.py freezes and thaws. Who is told so tries again.

if call('EXISTS', request.prefix .. 'frozen') == 1 then
  return redis.error_reply('FROZEN the state moves to another number of shards')
end
