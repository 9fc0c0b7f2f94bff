"""The sizes of the work, the same for all contenders."""

TASKS = 200
THREADS = 16
WORKERS = 16
BATCH = 500
READ = 100
REDIS_POOL = 20
