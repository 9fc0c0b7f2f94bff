"""redis-py by hand, on threads."""

from typing import Any

from redis import Redis

from benchmarks.meter import Meter, time_publishing
from benchmarks.place import Place
from benchmarks.registry import consumes, publishes
from benchmarks.works import BATCH, READ, THREADS

from .redis_reading import bare, entries
from .threads import in_threads


@publishes("lone-blocking", "redis-py")
def alone(place: Place, count: int) -> float:
    """Publish one message at a time."""
    with Redis(host=place.server.host, port=place.server.port) as client:

        def publish(numbers: range) -> None:
            for number in numbers:
                client.xadd(place.stream, bare(place.message(number)))

        return time_publishing(publish, count)


@publishes("threads", "redis-py")
def together(place: Place, count: int) -> float:
    """Publish from many threads on one client, whose pool has a connection for each."""
    with Redis(host=place.server.host, port=place.server.port) as client:

        def publish(number: int) -> None:
            client.xadd(place.stream, bare(place.message(number)))

        return time_publishing(in_threads(publish, THREADS), count)


@publishes("batch-blocking", "redis-py, pipelines")
def batches(place: Place, count: int) -> float:
    """Publish in pipelines."""
    with Redis(host=place.server.host, port=place.server.port) as client:

        def publish(numbers: range) -> None:
            for first in range(numbers.start, numbers.stop, BATCH):
                with client.pipeline(transaction=False) as pipeline:
                    for number in range(first, min(first + BATCH, numbers.stop)):
                        pipeline.xadd(place.stream, bare(place.message(number)))
                    pipeline.execute()

        return time_publishing(publish, count)


@consumes("receive-blocking", "redis-py, batches of 100")
@consumes("run-blocking", "redis-py, batches of 100")
def receive(place: Place, count: int) -> float:
    """Read and acknowledge batches."""
    return _receive(place, count, READ)


@consumes("run-blocking", "redis-py, one by one")
def receive_one_by_one(place: Place, count: int) -> float:
    """Read and acknowledge one message at a time."""
    return _receive(place, count, 1)


def _receive(place: Place, count: int, most: int) -> float:
    meter = Meter(place, count, entries)
    with Redis(host=place.server.host, port=place.server.port) as client:
        more = True
        while more:
            reply: Any = client.xreadgroup(
                place.group, place.consumer, {place.stream: ">"}, count=most, block=1000
            )
            [(_, messages)] = reply
            client.xack(place.stream, place.group, *[message[0] for message in messages])
            more = meter.batch(messages)
        seconds = meter.seconds()
    meter.check()
    return seconds
