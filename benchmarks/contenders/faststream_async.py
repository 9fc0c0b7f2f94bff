"""FastStream: a subscriber of a group, without logging."""

import asyncio
from typing import Any

from faststream.redis import RedisBroker, StreamSub

from benchmarks.meter import Meter
from benchmarks.place import Place
from benchmarks.registry import consumes
from benchmarks.works import READ


def _publish(place: Place, count: int) -> None:
    async def publish() -> None:
        async with RedisBroker(place.server.url, logger=None) as broker:
            for number in range(count):
                await broker.publish(place.message(number), stream=place.stream)

    place.fill(0)
    asyncio.run(publish())


@consumes("run-asyncio", "FastStream", _publish)
async def run(place: Place, count: int) -> float:
    """Run a subscriber whose handler does nothing."""
    meter = Meter(place, count, lambda message: message)
    tick = meter.handler()
    broker = RedisBroker(place.server.url, logger=None)
    source = StreamSub(place.stream, group=place.group, consumer=place.consumer, max_records=READ)

    @broker.subscriber(stream=source)
    async def handle(message: dict[str, Any]) -> None:
        tick(message)

    async with broker:
        await broker.start()
        seconds = await meter.wait_async(asyncio.Event().wait())
    meter.check()
    return seconds
