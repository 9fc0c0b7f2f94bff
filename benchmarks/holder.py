"""A process that holds messages: it prints how much memory a consumer takes.

It iterates over the consumer and settles nothing, so that messages and whatever is kept for their
settlement are there, 10,000 of them and not as many as prefetching finds right at the time.
"""

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

import step_redis
import step_redis.sync

from .place import GROUP, STREAM

_SETTLE_SECONDS = 0.5


def _say_and_end() -> None:
    """Print the resident bytes; what is held need not be handed back."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    print(resident, flush=True)
    os._exit(0)


async def _hold(port: int, count: int) -> None:
    params = step_redis.StepRedisPoolParams(host="127.0.0.1", port=port)
    held = []
    async with (
        step_redis.StepRedisPool(params) as pool,
        step_redis.StepRedisConsumer(pool, STREAM, GROUP) as consumer,
    ):

        async def take() -> None:
            async for message in consumer:
                held.append(message)
                if len(held) == count:
                    all_taken.set()

        all_taken = asyncio.Event()
        taking = asyncio.create_task(take())
        if count:
            await all_taken.wait()
        await asyncio.sleep(_SETTLE_SECONDS)
        assert not taking.done()
        _say_and_end()


def _hold_blocking(port: int, count: int) -> None:
    params = step_redis.sync.StepRedisPoolParams(host="127.0.0.1", port=port)
    held = []
    all_taken = threading.Event()
    with (
        step_redis.sync.StepRedisPool(params) as pool,
        step_redis.sync.StepRedisConsumer(pool, STREAM, GROUP) as consumer,
    ):

        def take() -> None:
            for message in consumer:
                held.append(message)
                if len(held) == count:
                    all_taken.set()

        threading.Thread(target=take, daemon=True).start()
        if count:
            all_taken.wait()
        time.sleep(_SETTLE_SECONDS)
        _say_and_end()


if __name__ == "__main__":
    _port, _count = int(sys.argv[2]), int(sys.argv[3])
    if sys.argv[1] == "asyncio":
        asyncio.run(_hold(_port, _count))
    else:
        _hold_blocking(_port, _count)
