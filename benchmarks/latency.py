"""How long a message is under way from publishing to its handler, at a steady pace."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median, quantiles
from typing import Any

import redis
import redis.asyncio

import step_redis
import step_redis.sync

from .measure import FULL, Bench
from .pace import SENT
from .payloads import SMALL
from .place import Place
from .registry import loop_factory
from .rows import Goal, Row

_A_SECOND = 1000
_WARM = 100
_GOAL = Goal(1.0, "most")
_READ = 100
_OURS = "step_redis"


class _Arrivals:
    """Takes the time of each message."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seconds: list[float] = []

    def take(self, sent: str | bytes) -> bool:
        """Take one; returns whether it was the last."""
        self._seconds.append((time.time_ns() - int(sent)) / 1e9)
        return len(self._seconds) >= self._count

    def percentiles(self) -> tuple[float, float]:
        """Return p50 and p99 in seconds."""
        parts = quantiles(self._seconds[_WARM:], n=100)
        return parts[49], parts[98]


def _params(place: Place) -> step_redis.StepRedisPoolParams:
    return step_redis.StepRedisPoolParams(host=place.server.host, port=place.server.port)


async def _ours_async(place: Place, arrivals: _Arrivals) -> None:
    async with (
        step_redis.StepRedisPool(_params(place)) as pool,
        step_redis.StepRedisConsumer(pool, place.stream, place.group) as consumer,
    ):

        async def handle(message: step_redis.StepRedisMessage) -> None:
            if arrivals.take(message.data[SENT]):
                consumer.stop()

        await consumer.run(handle)


def _ours_blocking(place: Place, arrivals: _Arrivals) -> None:
    with (
        step_redis.sync.StepRedisPool(_params(place)) as pool,
        step_redis.sync.StepRedisConsumer(pool, place.stream, place.group) as consumer,
    ):

        def handle(message: step_redis.sync.StepRedisMessage) -> None:
            if arrivals.take(message.data[SENT]):
                consumer.stop()

        consumer.run(handle)


async def _loop_async(place: Place, arrivals: _Arrivals, *, batch: bool) -> None:
    async with redis.asyncio.Redis(host=place.server.host, port=place.server.port) as client:
        ended = False
        while not ended:
            reply: Any = await client.xreadgroup(
                place.group, place.consumer, {place.stream: ">"}, count=_READ, block=1000
            )
            for _, messages in reply:
                for entry_id, fields in messages:
                    ended = arrivals.take(fields[SENT.encode()])
                    if not batch:
                        await client.xack(place.stream, place.group, entry_id)
                if batch:
                    await client.xack(place.stream, place.group, *[one[0] for one in messages])


def _loop_blocking(place: Place, arrivals: _Arrivals, *, batch: bool) -> None:
    with redis.Redis(host=place.server.host, port=place.server.port) as client:
        ended = False
        while not ended:
            reply: Any = client.xreadgroup(
                place.group, place.consumer, {place.stream: ">"}, count=_READ, block=1000
            )
            for _, messages in reply:
                for entry_id, fields in messages:
                    ended = arrivals.take(fields[SENT.encode()])
                    if not batch:
                        client.xack(place.stream, place.group, entry_id)
                if batch:
                    client.xack(place.stream, place.group, *[one[0] for one in messages])


_Consume = Callable[[Place, _Arrivals], Any]
_ONE = "redis-py loop, XACK one by one"
_BATCH = "redis-py loop, XACK of what was read"
_FLAVOURS: dict[str, dict[str, _Consume]] = {
    "asyncio": {
        _OURS: _ours_async,
        _ONE: lambda place, arrivals: _loop_async(place, arrivals, batch=False),
        _BATCH: lambda place, arrivals: _loop_async(place, arrivals, batch=True),
    },
    "blocking": {
        _OURS: _ours_blocking,
        _ONE: lambda place, arrivals: _loop_blocking(place, arrivals, batch=False),
        _BATCH: lambda place, arrivals: _loop_blocking(place, arrivals, batch=True),
    },
}


def latency(bench: Bench) -> Iterator[Row]:
    """Compare p50 and p99 with two loops on redis-py."""
    seconds, rounds = (4.0, 3) if bench.effort is FULL else (1.0, 1)
    count = int(_A_SECOND * seconds)
    for flavour, ways in _FLAVOURS.items():
        if flavour == "blocking" and bench.effort is not FULL:
            continue
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        names = list(ways)
        for _ in range(rounds):
            for name in names:
                found[name].append(_one(bench, flavour, ways[name], count))
            names.append(names.pop(0))
        for name in (_ONE, _BATCH):
            for index, part in enumerate(("p50", "p99")):
                yield _row(
                    flavour, part, name, *(_parts(found[who], index) for who in (_OURS, name))
                )


def _parts(found: list[tuple[float, float]], index: int) -> list[float]:
    return [one[index] for one in found]


def _row(flavour: str, part: str, peer: str, ours: list[float], theirs: list[float]) -> Row:
    ratios = tuple(mine / other for mine, other in zip(ours, theirs, strict=True))
    return Row(
        line="latency",
        what=f"publish to handler, {flavour}, {_A_SECOND:,}/s, {part}",
        ours=f"{median(ours) * 1000:.2f} ms",
        peer=peer,
        theirs=f"{median(theirs) * 1000:.2f} ms",
        ratio=median(ratios),
        ratios=ratios,
        goal=_GOAL,
    )


def _one(bench: Bench, flavour: str, consume: _Consume, count: int) -> tuple[float, float]:

    arrivals = _Arrivals(count)
    with bench.place(SMALL) as place:
        place.clear()
        place.looker.xgroup_create(place.stream, place.group, "0", mkstream=True)
        words = [str(place.server.port), place.stream, str(count), str(_A_SECOND)]
        publisher = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "benchmarks.pace", *words]
        )
        try:
            if flavour == "asyncio":
                with asyncio.Runner(loop_factory=loop_factory(bench.loop)) as runner:
                    runner.run(consume(place, arrivals))
            else:
                consume(place, arrivals)
        finally:
            publisher.wait()
        place.check_consumed(count, count)
    return arrivals.percentiles()
