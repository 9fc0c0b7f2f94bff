"""step_redis on asyncio."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.meter import Meter, time_async_publishing
from benchmarks.place import Place
from benchmarks.registry import OURS, consumes, publishes
from benchmarks.works import READ, TASKS, WORKERS
from step_redis import (
    ConsumerOptions,
    StepRedisConsumer,
    StepRedisMessage,
    StepRedisPool,
    StepRedisPoolParams,
    StepRedisStream,
)

WITHOUT_LEDGER = "step_redis without ledger"


@asynccontextmanager
async def _pool(place: Place) -> AsyncIterator[StepRedisPool]:
    params = StepRedisPoolParams(host=place.server.host, port=place.server.port)
    async with StepRedisPool(params) as pool:
        yield pool


@asynccontextmanager
async def _stream(place: Place, **options: Any) -> AsyncIterator[StepRedisStream]:
    async with _pool(place) as pool, StepRedisStream(pool, **options) as stream:
        yield stream


async def _alone(place: Place, count: int, **options: Any) -> float:
    async with _stream(place, **options) as stream:

        async def publish(numbers: range) -> None:
            for number in numbers:
                await stream.publish_message(place.stream, place.message(number))

        return await time_async_publishing(publish, count)


async def _together(place: Place, count: int, **options: Any) -> float:
    async with _stream(place, **options) as stream:

        async def publish(numbers: range) -> None:
            left = iter(numbers)

            async def one() -> None:
                for number in left:
                    await stream.publish_message(place.stream, place.message(number))

            await asyncio.gather(*(one() for _ in range(TASKS)))

        return await time_async_publishing(publish, count)


async def _batches(place: Place, count: int, **options: Any) -> float:
    async with _stream(place, **options) as stream:

        async def publish(numbers: range) -> None:
            await stream.publish_messages(place.stream, map(place.message, numbers))

        return await time_async_publishing(publish, count)


@publishes("lone-asyncio", OURS)
async def alone(place: Place, count: int) -> float:
    """Publish one message at a time."""
    return await _alone(place, count)


@publishes("lone-asyncio", WITHOUT_LEDGER)
async def alone_plain(place: Place, count: int) -> float:
    """Publish one message at a time, by plain XADD."""
    return await _alone(place, count, retry_seconds=0)


@publishes("tasks", OURS)
async def together(place: Place, count: int) -> float:
    """Publish from many tasks on one stream object."""
    return await _together(place, count)


@publishes("tasks", WITHOUT_LEDGER)
async def together_plain(place: Place, count: int) -> float:
    """Publish from many tasks, by plain XADD."""
    return await _together(place, count, retry_seconds=0)


@publishes("batch-asyncio", OURS)
async def batches(place: Place, count: int) -> float:
    """Publish from an iterable."""
    return await _batches(place, count)


@publishes("batch-asyncio", WITHOUT_LEDGER)
async def batches_plain(place: Place, count: int) -> float:
    """Publish from an iterable, by plain XADD."""
    return await _batches(place, count, retry_seconds=0)


async def _run(place: Place, count: int, options: ConsumerOptions, *, reads: bool = False) -> float:
    meter = Meter(place, count, lambda message: dict(message.data))
    tick = meter.handler()

    async def handle(message: StepRedisMessage) -> None:
        tick(message)

    async def handle_reading(message: StepRedisMessage) -> None:
        tick(message.data and message)

    async with (
        _pool(place) as pool,
        StepRedisConsumer(pool, place.stream, place.group, options=options) as consumer,
    ):
        running = asyncio.create_task(consumer.run(handle_reading if reads else handle))
        seconds = await meter.wait_async(running)
        consumer.stop()
        await running
    meter.check()
    return seconds


@consumes("run-asyncio", OURS)
async def run(place: Place, count: int) -> float:
    """Run a consumer whose handler does nothing."""
    return await _run(place, count, ConsumerOptions())


@consumes("run16-asyncio", OURS)
async def run_many(place: Place, count: int) -> float:
    """Run a consumer with many workers."""
    return await _run(place, count, ConsumerOptions(concurrency=WORKERS))


@consumes("run-asyncio", "step_redis reading data")
async def run_reading(place: Place, count: int) -> float:
    """Run a consumer whose handler looks at the message, which is decoded then."""
    return await _run(place, count, ConsumerOptions(), reads=True)


@consumes("receive-asyncio", OURS)
async def receive(place: Place, count: int) -> float:
    """Receive and acknowledge batches."""
    meter = Meter(place, count, lambda message: dict(message["data"]))
    async with _stream(place) as stream:
        more = True
        while more:
            messages = await stream.receive_message(
                place.stream, place.group, place.consumer, 1000, READ
            )
            await stream.acknowledge_message(
                place.stream, place.group, [message["id"] for message in messages]
            )
            more = meter.batch(messages)
        seconds = meter.seconds()
    meter.check()
    return seconds
