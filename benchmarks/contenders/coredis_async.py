"""coredis by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import coredis

from benchmarks.meter import Meter, time_async_publishing
from benchmarks.place import Place
from benchmarks.registry import consumes, publishes
from benchmarks.works import READ, TASKS

from .redis_reading import entries


@asynccontextmanager
async def _client(place: Place) -> AsyncIterator[Any]:
    async with coredis.Redis(host=place.server.host, port=place.server.port) as client:
        yield client


@publishes("tasks", "coredis")
async def together(place: Place, count: int) -> float:
    """Publish from many tasks."""
    async with _client(place) as client:

        async def publish(numbers: range) -> None:
            left = iter(numbers)

            async def one() -> None:
                for number in left:
                    await client.xadd(place.stream, place.message(number))

            await asyncio.gather(*(one() for _ in range(TASKS)))

        return await time_async_publishing(publish, count)


@consumes("run-asyncio", "coredis, batches of 100")
async def receive(place: Place, count: int) -> float:
    """Read and acknowledge batches."""
    meter = Meter(place, count, lambda entry: entries((b"", dict(entry.field_values))))
    async with _client(place) as client:
        more = True
        while more:
            reply = await client.xreadgroup(
                place.group, place.consumer, {place.stream: ">"}, count=READ, block=1000
            )
            [messages] = reply.values()
            await client.xack(place.stream, place.group, [entry.identifier for entry in messages])
            more = meter.batch(messages)
        seconds = meter.seconds()
    meter.check()
    return seconds
