"""redis-py by hand, on asyncio."""

import asyncio
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.meter import Meter, time_async_publishing
from benchmarks.place import Place
from benchmarks.registry import consumes, publishes
from benchmarks.works import BATCH, READ, REDIS_POOL, TASKS

from .redis_reading import bare, entries


@publishes("lone-asyncio", "redis-py")
async def alone(place: Place, count: int) -> float:
    """Publish one message at a time."""
    async with Redis(host=place.server.host, port=place.server.port) as client:

        async def publish(numbers: range) -> None:
            for number in numbers:
                await client.xadd(place.stream, bare(place.message(number)))

        return await time_async_publishing(publish, count)


@publishes("tasks", "redis-py, blocking pool of 20")
async def together(place: Place, count: int) -> float:
    """Publish from many tasks."""
    pool = BlockingConnectionPool.from_url(
        place.server.url, max_connections=REDIS_POOL, timeout=None
    )
    async with Redis(connection_pool=pool) as client:

        async def publish(numbers: range) -> None:
            left = iter(numbers)

            async def one() -> None:
                for number in left:
                    await client.xadd(place.stream, bare(place.message(number)))

            await asyncio.gather(*(one() for _ in range(TASKS)))

        try:
            return await time_async_publishing(publish, count)
        finally:
            await pool.disconnect()


@publishes("batch-asyncio", "redis-py, pipelines")
async def batches(place: Place, count: int) -> float:
    """Publish in pipelines."""
    async with Redis(host=place.server.host, port=place.server.port) as client:

        async def publish(numbers: range) -> None:
            for first in range(numbers.start, numbers.stop, BATCH):
                async with client.pipeline(transaction=False) as pipeline:
                    for number in range(first, min(first + BATCH, numbers.stop)):
                        _ = pipeline.xadd(place.stream, bare(place.message(number)))
                    await pipeline.execute()

        return await time_async_publishing(publish, count)


@consumes("receive-asyncio", "redis-py, batches of 100")
@consumes("run-asyncio", "redis-py, batches of 100")
async def receive(place: Place, count: int) -> float:
    """Read and acknowledge batches."""
    return await _receive(place, count, READ)


@consumes("run-asyncio", "redis-py, one by one")
async def receive_one_by_one(place: Place, count: int) -> float:
    """Read and acknowledge one message at a time."""
    return await _receive(place, count, 1)


async def _receive(place: Place, count: int, most: int) -> float:
    meter = Meter(place, count, entries)
    async with Redis(host=place.server.host, port=place.server.port) as client:
        more = True
        while more:
            reply: Any = await client.xreadgroup(
                place.group, place.consumer, {place.stream: ">"}, count=most, block=1000
            )
            [(_, messages)] = reply
            await client.xack(place.stream, place.group, *[message[0] for message in messages])
            more = meter.batch(messages)
        seconds = meter.seconds()
    meter.check()
    return seconds
