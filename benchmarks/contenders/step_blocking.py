"""step_redis on threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.meter import Meter, time_publishing
from benchmarks.place import Place
from benchmarks.registry import OURS, consumes, publishes
from benchmarks.works import READ, THREADS, WORKERS
from step_redis.sync import (
    ConsumerOptions,
    StepRedisConsumer,
    StepRedisMessage,
    StepRedisPool,
    StepRedisPoolParams,
    StepRedisStream,
)

from .threads import in_threads

WITHOUT_LEDGER = "step_redis without ledger"


@contextmanager
def _pool(place: Place) -> Iterator[StepRedisPool]:
    params = StepRedisPoolParams(host=place.server.host, port=place.server.port)
    with StepRedisPool(params) as pool:
        yield pool


@contextmanager
def _stream(place: Place, **options: Any) -> Iterator[StepRedisStream]:
    with _pool(place) as pool, StepRedisStream(pool, **options) as stream:
        yield stream


def _alone(place: Place, count: int, **options: Any) -> float:
    with _stream(place, **options) as stream:

        def publish(numbers: range) -> None:
            for number in numbers:
                stream.publish_message(place.stream, place.message(number))

        return time_publishing(publish, count)


def _together(place: Place, count: int, **options: Any) -> float:
    with _stream(place, **options) as stream:

        def publish(number: int) -> None:
            stream.publish_message(place.stream, place.message(number))

        return time_publishing(in_threads(publish, THREADS), count)


def _batches(place: Place, count: int, **options: Any) -> float:
    with _stream(place, **options) as stream:

        def publish(numbers: range) -> None:
            stream.publish_messages(place.stream, map(place.message, numbers))

        return time_publishing(publish, count)


@publishes("lone-blocking", OURS)
def alone(place: Place, count: int) -> float:
    """Publish one message at a time."""
    return _alone(place, count)


@publishes("lone-blocking", WITHOUT_LEDGER)
def alone_plain(place: Place, count: int) -> float:
    """Publish one message at a time, by plain XADD."""
    return _alone(place, count, retry_seconds=0)


@publishes("threads", OURS)
def together(place: Place, count: int) -> float:
    """Publish from many threads on one stream object."""
    return _together(place, count)


@publishes("threads", WITHOUT_LEDGER)
def together_plain(place: Place, count: int) -> float:
    """Publish from many threads, by plain XADD."""
    return _together(place, count, retry_seconds=0)


@publishes("batch-blocking", OURS)
def batches(place: Place, count: int) -> float:
    """Publish from an iterable."""
    return _batches(place, count)


@publishes("batch-blocking", WITHOUT_LEDGER)
def batches_plain(place: Place, count: int) -> float:
    """Publish from an iterable, by plain XADD."""
    return _batches(place, count, retry_seconds=0)


def _run(place: Place, count: int, options: ConsumerOptions, *, reads: bool = False) -> float:
    meter = Meter(place, count, lambda message: dict(message.data))
    tick = meter.handler()
    measured = []

    def handle_reading(message: StepRedisMessage) -> None:
        tick(message.data and message)

    with (
        _pool(place) as pool,
        StepRedisConsumer(pool, place.stream, place.group, options=options) as consumer,
    ):

        def watch() -> None:
            try:
                measured.append(meter.wait())
            finally:
                consumer.stop()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        consumer.run(handle_reading if reads else tick)
        watcher.join()
    meter.check()
    return measured[0]


@consumes("run-blocking", OURS)
def run(place: Place, count: int) -> float:
    """Run a consumer whose handler does nothing."""
    return _run(place, count, ConsumerOptions())


@consumes("run16-blocking", OURS)
def run_many(place: Place, count: int) -> float:
    """Run a consumer with many workers."""
    return _run(place, count, ConsumerOptions(concurrency=WORKERS))


@consumes("run-blocking", "step_redis reading data")
def run_reading(place: Place, count: int) -> float:
    """Run a consumer whose handler looks at the message, which is decoded then."""
    return _run(place, count, ConsumerOptions(), reads=True)


@consumes("receive-blocking", OURS)
def receive(place: Place, count: int) -> float:
    """Receive and acknowledge batches."""
    meter = Meter(place, count, lambda message: dict(message["data"]))
    with _stream(place) as stream:
        more = True
        while more:
            messages = stream.receive_message(place.stream, place.group, place.consumer, 1000, READ)
            stream.acknowledge_message(
                place.stream, place.group, [message["id"] for message in messages]
            )
            more = meter.batch(messages)
        seconds = meter.seconds()
    meter.check()
    return seconds
