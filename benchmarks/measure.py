"""Comparing two contenders: back to back, in alternating order, several rounds, medians."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import attrs

from .payloads import Payload
from .place import Place
from .registry import Contender
from .server import Server

_CHECKED = 500
_LONG_ENOUGH = 0.1
_MOST = 400_000
_MOST_BYTES = 150_000_000


@attrs.frozen
class Effort:
    """How much is measured."""

    seconds: float
    """How long each measurement takes, about."""
    rounds: int
    name: str


QUICK = Effort(0.15, 2, "quick")
FULL = Effort(1.0, 5, "full")


@attrs.frozen
class Pair:
    """What came of comparing two contenders."""

    ours: float
    """Messages a second, median."""
    theirs: float
    ratios: tuple[float, ...]
    """Of each round."""

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return median(self.ratios)


class Bench:
    """One run: the server, and how many messages each contender needs to be measured.

    Args:
        server: The server.
        effort: How much is measured.
        loop: The event loop of asyncio contenders.
    """

    def __init__(self, server: Server, effort: Effort, loop: str = "asyncio") -> None:
        self.server, self.effort, self.loop = server, effort, loop
        self._counts: dict[tuple[str, str, str, str], int] = {}

    @contextmanager
    def place(self, payload: Payload, *, checks: bool = False) -> Iterator[Place]:
        """Give a stream, and a look at it."""
        with self.server.client() as looker:
            yield Place(self.server, payload, looker, checks)

    def compare(
        self, ours: Contender, theirs: Contender, payload: Payload, loops: tuple[str, str]
    ) -> Pair:
        """Run two contenders in turn; each begins as often as the other."""
        sides = [(ours, loops[0]), (theirs, loops[1])]
        counts = [self.count(contender, payload, loop) for contender, loop in sides]
        rates: list[list[float]] = [[], []]
        for round_number in range(self.effort.rounds):
            for side in ((0, 1), (1, 0))[round_number % 2]:
                contender, loop = sides[side]
                rates[side].append(1 / self._seconds(contender, payload, counts[side], loop))
        ratios = tuple(mine / other for mine, other in zip(*rates, strict=True))
        return Pair(median(rates[0]), median(rates[1]), ratios)

    def _seconds(self, contender: Contender, payload: Payload, count: int, loop: str) -> float:
        with self.place(payload) as place:
            return contender.measure(place, count, loop)

    def count(self, contender: Contender, payload: Payload, loop: str) -> int:
        """Check the contender, warm it up, and find out how many messages take long enough."""
        key = (contender.work, contender.library, payload.name, loop)
        if key not in self._counts:
            with self.place(payload, checks=True) as place:
                seconds = contender.measure(place, _CHECKED, loop)
            count, most = _CHECKED, min(_MOST, _MOST_BYTES // payload.size)
            while count < most and seconds * count < _LONG_ENOUGH:
                count = min(most, max(2 * count, int(_LONG_ENOUGH / seconds)))
                seconds = self._seconds(contender, payload, count, loop)
            self._counts[key] = min(most, max(_CHECKED, int(self.effort.seconds / seconds)))
        return self._counts[key]
