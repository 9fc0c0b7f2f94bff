"""valkey-glide by hand: one client, which multiplexes, as its documentation tells to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from glide import (
    GlideClient,
    GlideClientConfiguration,
    NodeAddress,
    StreamReadGroupOptions,
)

from benchmarks.meter import Meter, time_async_publishing
from benchmarks.place import Place
from benchmarks.registry import consumes, publishes
from benchmarks.works import READ, TASKS

from .glide_reading import entry_fields, first_stream


@asynccontextmanager
async def _client(place: Place) -> AsyncIterator[Any]:
    addresses = [NodeAddress(place.server.host, place.server.port)]
    client = await GlideClient.create(GlideClientConfiguration(addresses))
    try:
        yield client
    finally:
        await client.close()


@publishes("lone-asyncio", "valkey-glide")
async def alone(place: Place, count: int) -> float:
    """Publish one message at a time."""
    async with _client(place) as client:

        async def publish(numbers: range) -> None:
            for number in numbers:
                await client.xadd(place.stream, list(place.message(number).items()))

        return await time_async_publishing(publish, count)


@publishes("tasks", "valkey-glide")
async def together(place: Place, count: int) -> float:
    """Publish from many tasks."""
    async with _client(place) as client:

        async def publish(numbers: range) -> None:
            left = iter(numbers)

            async def one() -> None:
                for number in left:
                    await client.xadd(place.stream, list(place.message(number).items()))

            await asyncio.gather(*(one() for _ in range(TASKS)))

        return await time_async_publishing(publish, count)


@consumes("run-asyncio", "valkey-glide, batches of 100")
async def receive(place: Place, count: int) -> float:
    """Read and acknowledge batches."""
    meter = Meter(place, count, entry_fields)
    options = StreamReadGroupOptions(count=READ)
    async with _client(place) as client:
        more = True
        while more:
            reply = await client.xreadgroup(
                {place.stream: ">"}, place.group, place.consumer, options
            )
            messages = first_stream(reply)
            await client.xack(place.stream, place.group, list(messages))
            more = meter.batch(list(messages.values()) if place.checks else messages)
        seconds = meter.seconds()
    meter.check()
    return seconds
