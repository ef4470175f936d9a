-- Return what there is of an analytic: its hash, which begins with its time of birth, its state, and its numbers.
-- KEYS  1 the analytic's hash   2 state   3 numbers      ARGV  1 now, µs

redis.call('HSETNX', KEYS[1], 'born', ARGV[1])
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}
