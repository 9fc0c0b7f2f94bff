"""taskiq with the streams of taskiq-redis: a worker's receiver and a task that does nothing."""

import asyncio
import logging
from typing import Any

from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from benchmarks.meter import Meter
from benchmarks.place import Place
from benchmarks.registry import consumes

_TASK = "bench"
_IDLE_SECONDS = 0.05


def _broker(place: Place) -> RedisStreamBroker:
    return RedisStreamBroker(
        place.server.url,
        queue_name=place.stream,
        consumer_group_name=place.group,
        consumer_name=place.consumer,
        consumer_id="0",
        xread_block=100,
    )


def _publish(place: Place, count: int) -> None:
    async def publish() -> None:
        broker = _broker(place)

        @broker.task(task_name=_TASK)
        async def send(message: dict[str, Any]) -> None:
            """Do nothing; only its name counts."""

        await broker.startup()
        for number in range(count):
            await send.kiq(place.message(number))
        await broker.shutdown()

    asyncio.run(publish())


@consumes("run-asyncio", "taskiq-redis", _publish)
async def run(place: Place, count: int) -> float:
    """Run a worker's receiver whose task does nothing."""
    # It logs each task at level INFO; a worker with the default level does not show that.
    logging.getLogger("taskiq").setLevel(logging.WARNING)
    meter = Meter(place, count, lambda message: message)
    tick = meter.handler()
    broker = _broker(place)
    broker.is_worker_process = True

    @broker.task(task_name=_TASK)
    async def handle(message: dict[str, Any]) -> None:
        tick(message)

    finish = asyncio.Event()
    listening = asyncio.create_task(Receiver(broker, max_async_tasks=100).listen(finish))
    try:
        seconds = await meter.wait_async(listening)
    finally:
        # It may miss being stopped while it looks for unacknowledged messages, and hang then.
        await asyncio.sleep(_IDLE_SECONDS)
        finish.set()
        await listening
        await broker.shutdown()
    meter.check()
    return seconds
