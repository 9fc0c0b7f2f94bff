"""The memory of a consumer that holds messages, over that of one that holds none."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import attrs

from .measure import FULL, Bench
from .payloads import KILOBYTE
from .rows import Goal, Row

_HELD = 10_000
_GOAL = Goal(1.8, "most")
_MEGABYTE = 1_000_000
_SECONDS = 60


def memory(bench: Bench) -> Iterator[Row]:
    """Compare what is held with the bytes of its payload, in processes of their own."""
    payload = _HELD * KILOBYTE.size
    flavours = ("asyncio", "blocking") if bench.effort is FULL else ("asyncio",)
    for flavour in flavours:
        row = Row(
            line="memory",
            what=f"a consumer holds {_HELD:,} messages of 1 KB, {flavour}",
            peer="bytes of the payload",
            goal=_GOAL,
        )
        if not Path("/proc/self/statm").exists():
            yield attrs.evolve(row, note="needs /proc, which Linux has")
            continue
        rounds = 3 if bench.effort is FULL else 1
        over = [
            _resident(bench, flavour, _HELD) - _resident(bench, flavour, 0) for _ in range(rounds)
        ]
        yield attrs.evolve(
            row,
            ours=f"{median(over) / _MEGABYTE:.1f} MB",
            theirs=f"{payload / _MEGABYTE:.1f} MB",
            ratio=median(over) / payload,
            ratios=tuple(one / payload for one in over),
        )


def _resident(bench: Bench, flavour: str, held: int) -> int:
    with bench.place(KILOBYTE) as place:
        place.clear()
        place.fill(held)
        words = [flavour, str(place.server.port), str(held)]
        ended = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "benchmarks.holder", *words],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    return int(ended.stdout)
