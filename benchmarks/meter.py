"""Taking the time of a piece of work, without its start."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from itertools import count as counting
from time import perf_counter
from typing import Any

from .place import CheckError, Place

_SETTLE_SECONDS = 30.0
_LOOK_SECONDS = 0.001


def _warm(count: int) -> int:
    """Return how many messages come before the time counts: connections are made meanwhile."""
    return min(count // 5, 1000)


def time_publishing(work: Callable[[range], object], count: int) -> float:
    """Return the seconds a message that `work` takes; it publishes the messages of a range."""
    warm = _warm(count)
    work(range(warm))
    started = perf_counter()
    work(range(warm, count))
    return (perf_counter() - started) / (count - warm)


async def time_async_publishing(work: Callable[[range], Awaitable[object]], count: int) -> float:
    """Do what `time_publishing` does, on an event loop."""
    warm = _warm(count)
    await work(range(warm))
    started = perf_counter()
    await work(range(warm, count))
    return (perf_counter() - started) / (count - warm)


class Meter:
    """Counts messages as they are handled, and takes the time until all are acknowledged.

    Args:
        place: Where they come from.
        count: How many there are.
        read: Returns what was published from what a handler was given; used in checks only.
    """

    def __init__(self, place: Place, count: int, read: Callable[[Any], dict[str, str]]) -> None:
        self._place, self._count, self._read = place, count, read
        self._seen: list[Any] = []
        self._taken = 0
        self._started: tuple[int, float] | None = None
        self._warm = _warm(count)
        self.all_taken = threading.Event()
        self._on_all_taken: Callable[[], object] = self.all_taken.set

    def handler(self) -> Callable[[Any], None]:
        """Return what a handler calls with each message; threads may do so at the same time."""
        numbers, first, last = counting(1), self._warm, self._count

        def tick(message: Any) -> None:  # noqa: ARG001 - a handler that does nothing
            number = next(numbers)
            if number == first:
                self._started = number, perf_counter()
            elif number >= last:
                self._taken = max(self._taken, number)
                self._on_all_taken()

        def look(message: Any) -> None:
            self._seen.append(self._read(message))
            tick(message)

        return look if self._place.checks else tick

    def batch(self, messages: Collection[Any]) -> bool:
        """Count a batch that was read by hand; returns whether more are to come."""
        if self._place.checks:
            self._seen.extend(map(self._read, messages))
        self._taken += len(messages)
        if self._started is None and self._taken >= self._warm:
            self._started = self._taken, perf_counter()
        return self._taken < self._count

    async def wait_async(self, work: Awaitable[object]) -> float:
        """Return the seconds a message, once all are taken and acknowledged.

        Args:
            work: Consumes meanwhile; if it ends before, it failed.
        """
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._on_all_taken = lambda: loop.call_soon_threadsafe(ready.set)
        working = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() and not waiting.done():
            waiting.cancel()
            await working
            raise CheckError(f"the consumer ended before it had handled {self._count} messages")
        deadline = perf_counter() + _SETTLE_SECONDS
        while self._place.pending() and perf_counter() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        return self.seconds()

    def wait(self) -> float:
        """Return the seconds a message, once all are taken and acknowledged, on a thread."""
        self.all_taken.wait()
        deadline = perf_counter() + _SETTLE_SECONDS
        while self._place.pending() and perf_counter() < deadline:
            time.sleep(_LOOK_SECONDS)
        return self.seconds()

    def seconds(self) -> float:
        """Return the seconds a message from the end of warming up until now."""
        ended = perf_counter()
        assert self._started is not None
        number, started = self._started
        return (ended - started) / (self._count - number)

    def check(self) -> None:
        """Check what was handled, when the consumer has ended."""
        self._place.check_consumed(self._count, self._taken)
        if self._place.checks:
            self._place.check_contents(self._seen, self._count)
