"""valkey-glide's blocking client by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glide_sync import (
    GlideClient,
    GlideClientConfiguration,
    NodeAddress,
    StreamReadGroupOptions,
)

from benchmarks.meter import Meter, time_publishing
from benchmarks.place import Place
from benchmarks.registry import consumes, publishes
from benchmarks.works import READ, THREADS

from .glide_reading import entry_fields, first_stream
from .threads import in_threads


@contextmanager
def _client(place: Place) -> Iterator[Any]:
    addresses = [NodeAddress(place.server.host, place.server.port)]
    client = GlideClient.create(GlideClientConfiguration(addresses))
    try:
        yield client
    finally:
        client.close()


@publishes("lone-blocking", "valkey-glide-sync")
def alone(place: Place, count: int) -> float:
    """Publish one message at a time."""
    with _client(place) as client:

        def publish(numbers: range) -> None:
            for number in numbers:
                client.xadd(place.stream, list(place.message(number).items()))

        return time_publishing(publish, count)


@publishes("threads", "valkey-glide-sync")
def together(place: Place, count: int) -> float:
    """Publish from many threads on one client."""
    with _client(place) as client:

        def publish(number: int) -> None:
            client.xadd(place.stream, list(place.message(number).items()))

        return time_publishing(in_threads(publish, THREADS), count)


@consumes("run-blocking", "valkey-glide-sync, batches of 100")
def receive(place: Place, count: int) -> float:
    """Read and acknowledge batches."""
    meter = Meter(place, count, entry_fields)
    options = StreamReadGroupOptions(count=READ)
    with _client(place) as client:
        more = True
        while more:
            reply = client.xreadgroup({place.stream: ">"}, place.group, place.consumer, options)
            messages = first_stream(reply)
            client.xack(place.stream, place.group, list(messages))
            more = meter.batch(list(messages.values()) if place.checks else messages)
        seconds = meter.seconds()
    meter.check()
    return seconds
