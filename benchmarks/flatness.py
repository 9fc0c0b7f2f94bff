"""Whether a message costs the same however much there is: messages, pending ones, consumers."""

import asyncio
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, cast

import attrs

from .measure import FULL, Bench
from .payloads import SMALL, fill
from .place import Place
from .registry import CONTENDERS, OURS, AsyncRun
from .rows import Goal, Row

_SAME = Goal(1.2, "most")
_LEAST, _MOST = 1_000, 100_000
_READ_STEP = 10_000
_FOREVER_MS = 3_600_000


@attrs.frozen
class _Amount:
    """What there may be much of."""

    what: str
    few: int
    many: int
    many_quick: int
    prepare: Callable[[Place, int], None]
    holds: bool = False
    """Whether it stays pending."""


def _messages(place: Place, amount: int) -> None:
    fill(place.looker, place.stream, place.payload, amount)
    place.looker.xgroup_create(place.stream, place.group, "$")


def _pending(place: Place, amount: int) -> None:
    fill(place.looker, place.stream, place.payload, amount)
    place.looker.xgroup_create(place.stream, place.group, "0")
    left = amount
    while left:
        count = min(left, _READ_STEP)
        # With NOACK nothing would be pending; a script keeps the reply on the server.
        place.looker.eval(
            "redis.call('XREADGROUP', 'GROUP', ARGV[1], 'another program', 'COUNT', ARGV[2],"
            " 'STREAMS', KEYS[1], '>')",
            1,
            *(place.stream, place.group, str(count)),
        )
        left -= count


def _consumers(place: Place, amount: int) -> None:
    place.looker.xgroup_create(place.stream, place.group, "0", mkstream=True)
    seconds, _ = place.looker.time()
    until = seconds * 1000 + _FOREVER_MS
    names = [f"consumer-{number}~{number:08x}" for number in range(amount - 1)]
    # The reserved consumer comes first: a group without it is new, and forgets its leases.
    for name in ("_step:parked", *names):
        place.looker.xgroup_createconsumer(place.stream, place.group, name)
    if names:
        leases = f"{{{place.stream}}}.leases:{place.group}"
        place.looker.zadd(leases, dict.fromkeys(names, until))


_AMOUNTS = (
    _Amount("messages in the stream", 10**4, 10**6, 10**5, _messages),
    _Amount("pending of another consumer", 10, 10**6, 10**5, _pending, holds=True),
    _Amount("consumers in the group", 1, 1000, 1000, _consumers),
)


def flatness(bench: Bench) -> Iterator[Row]:
    """Compare the cost of a message of a large amount with that of a small one."""
    for amount in _AMOUNTS:
        many = amount.many if bench.effort is FULL else amount.many_quick
        for work in ("run-asyncio", "batch-asyncio"):
            if work == "batch-asyncio" and amount.prepare is not _messages:
                continue
            # It clears the server, so not amid what is prepared.
            count = max(_LEAST, min(_MOST, bench.count(CONTENDERS[work, OURS], SMALL, "asyncio")))
            ratios, costs = [], []
            for round_number in range(bench.effort.rounds):
                sizes = (amount.few, many) if round_number % 2 else (many, amount.few)
                seconds = {size: _cost(bench, work, amount, size, count) for size in sizes}
                ratios.append(seconds[many] / seconds[amount.few])
                costs.append((seconds[many], seconds[amount.few]))
            what = "consumer.run" if work.startswith("run") else "publish_messages"
            yield Row(
                line="flatness",
                what=f"{what}, {many:,} {amount.what}",
                ours=f"{median(cost for cost, _ in costs) * 1e6:.2f} us",
                peer=f"{amount.few:,}",
                theirs=f"{median(cost for _, cost in costs) * 1e6:.2f} us",
                ratio=median(ratios),
                ratios=tuple(ratios),
                goal=_SAME,
                note="" if many == amount.many else f"up to {many:,} in the quick run",
            )


def _cost(bench: Bench, work: str, amount: _Amount, size: int, count: int) -> float:
    contender = CONTENDERS[work, OURS]
    with bench.place(SMALL) as place:
        place.clear()
        amount.prepare(place, size)
        if amount.holds:
            place = attrs.evolve(place, others=size)  # noqa: PLW2901 - the same place
        if contender.fill is not None:
            fill(place.looker, place.stream, SMALL, count)
        time.sleep(0.1)  # the server frees what was there
        work_of: Any = cast("AsyncRun", contender.run)(place, count)
        with asyncio.Runner() as runner:
            return float(runner.run(work_of))
