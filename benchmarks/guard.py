"""The regression guard: `python -m benchmarks.guard` fails if step_redis became much slower.

It compares with redis-py in the same run, with bounds of about half of what is reached, so that a
busy machine passes and a mistake that costs a round trip or a task a message does not.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import step_redis
import step_redis.sync

from .lines import LINES
from .measure import Bench, Effort
from .payloads import SMALL
from .registry import load
from .rows import Row
from .server import started_server

BOUNDS: Mapping[tuple[str, str], float] = {
    ("lone-asyncio", "redis-py"): 0.35,
    ("lone-blocking", "redis-py"): 0.35,
    ("tasks", "redis-py, blocking pool of 20"): 4,
    ("threads", "redis-py"): 0.9,
    ("batch-asyncio", "redis-py, pipelines"): 2,
    ("batch-blocking", "redis-py, pipelines"): 1,
    ("run-asyncio", "redis-py, one by one"): 12,
    ("run-blocking", "redis-py, one by one"): 8,
    ("receive-asyncio", "redis-py, batches of 100"): 0.4,
    ("receive-blocking", "redis-py, batches of 100"): 0.4,
}
"""The least ratio, by line and peer."""

_EFFORT = Effort(0.2, 3, "guard")


def problems(rows: Iterable[Row], bounds: Mapping[tuple[str, str], float]) -> list[str]:
    """Say what is too slow, or was not measured."""
    found = {(row.line, row.peer): row for row in rows}
    said = []
    for (line, peer), bound in bounds.items():
        row = found.get((line, peer))
        if row is None or row.ratio is None:
            said.append(f"{line}: not measured{f' ({row.note})' if row and row.note else ''}")
        # The best round counts: what others do on the machine can only make us slower.
        elif max(row.ratios, default=row.ratio) < bound:
            said.append(
                f"{line}: {row.ratio:.2f} x {peer}, and in no round {bound:g} x"
                f" (step_redis {row.ours}, {peer} {row.theirs})"
            )
    return said


def plant(seconds: float) -> None:
    """Let each message cost so many seconds of work more, to see it found."""

    def work() -> None:
        # Sleeping would let other threads go on.
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    def slowly(message: Any) -> Any:
        work()
        return message

    def before(cls: type, method: str) -> None:
        original = getattr(cls, method)

        def slower(*args: Any, **options: Any) -> Any:
            work()
            return original(*args, **options)

        setattr(cls, method, slower)

    def each(cls: type, method: str) -> None:
        original = getattr(cls, method)

        def slower(self: Any, stream: str, *args: Any) -> Any:
            *others, many = args
            return original(self, stream, *others, list(map(slowly, many)))

        setattr(cls, method, slower)

    for flavour in (step_redis, step_redis.sync):
        before(flavour.StepRedisStream, "publish_message")
        before(flavour.StepRedisMessage, "__init__")
        each(flavour.StepRedisStream, "publish_messages")
        each(flavour.StepRedisStream, "acknowledge_message")


def main() -> None:
    """Measure, and exit with 1 if something is too slow."""
    load("redis", "step_redis")
    if planted := os.environ.get("STEP_REDIS_GUARD_PLANT"):
        plant(float(planted))
    rows = []
    with started_server() as server:
        bench = Bench(server, _EFFORT)
        print(f"guard: {server.describe()}")
        for line in LINES:
            for peer in (peer for name, peer in BOUNDS if name == line.name):
                row = line.row(bench, SMALL, peer)
                rows.append(row)
                print(
                    f"  {line.name}: {row.ratio or 0:.2f} x {peer}, at least"
                    f" {BOUNDS[line.name, peer]:g}",
                    flush=True,
                )
    said = problems(rows, BOUNDS)
    if said:
        print("\n".join(("slower than the guard allows:", *said)), file=sys.stderr)
        sys.exit(1)
    print("guard: nothing is slower than it may be")


if __name__ == "__main__":
    main()
