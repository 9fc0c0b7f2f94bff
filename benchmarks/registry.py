"""The contenders: which library does which work, and how."""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import attrs

from .place import Place

Run = Callable[[Place, int], float]
AsyncRun = Callable[[Place, int], Coroutine[Any, Any, float]]

Function = TypeVar("Function", bound="Run | AsyncRun")

OURS = "step_redis"

_LIBRARIES = {
    "step_async": "step_redis",
    "step_blocking": "step_redis",
    "redis_async": "redis",
    "redis_blocking": "redis",
    "glide_async": "glide",
    "glide_blocking": "glide_sync",
    "coredis_async": "coredis",
    "faststream_async": "faststream",
    "taskiq_async": "taskiq_redis",
}


@attrs.frozen
class Contender:
    """One library doing one kind of work.

    Args:
        work: The kind of work.
        library: The library, and how it is used where there are several ways.
        run: Does the work with so many messages; returns the seconds a message.
        fill: Writes so many messages for a consumer; None for those that publish.
    """

    work: str
    library: str
    run: Run | AsyncRun
    fill: Callable[[Place, int], None] | None = None

    @property
    def on_loop(self) -> bool:
        """Whether it runs on an event loop."""
        return inspect.iscoroutinefunction(self.run)

    def measure(self, place: Place, count: int, loop: str = "asyncio") -> float:
        """Do the work once, and check it; returns the seconds a message."""
        place.clear()
        if self.fill is not None:
            self.fill(place, count)
        if self.on_loop:
            with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
                seconds = runner.run(cast("AsyncRun", self.run)(place, count))
        else:
            seconds = cast("Run", self.run)(place, count)
        if self.fill is None:
            place.check_published(count)
        return seconds


CONTENDERS: dict[tuple[str, str], Contender] = {}


def publishes(work: str, library: str) -> Callable[[Function], Function]:
    """Enter a function that publishes messages 0 to ``count - 1``."""
    return lambda run: _enter(Contender(work, library, run), run)


def consumes(
    work: str, library: str, fill: Callable[[Place, int], None] = Place.fill
) -> Callable[[Function], Function]:
    """Enter a function that handles and acknowledges the messages that `fill` wrote."""
    return lambda run: _enter(Contender(work, library, run, fill), run)


def load(*libraries: str) -> list[str]:
    """Enter the contenders of these libraries, or all; returns which are missing, and why."""
    missing = []
    for module, library in _LIBRARIES.items():
        if libraries and library not in libraries:
            continue
        try:
            importlib.import_module(f".contenders.{module}", __package__)
        except ImportError as error:
            missing.append(f"{library}: {error}")
    return missing


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes event loops of this kind; None makes the stock one."""
    if loop == "asyncio":
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(loop).new_event_loop
    return factory


def _enter(contender: Contender, run: Function) -> Function:
    CONTENDERS[contender.work, contender.library] = contender
    return run
