"""The lines of the table: which work is compared with whose, and what is to be reached."""

from collections.abc import Iterator

import attrs

from .measure import Bench
from .payloads import SMALL, Payload
from .registry import CONTENDERS, OURS
from .rows import Goal, Row, rate


@attrs.frozen
class Against:
    """What a line compares.

    Args:
        library: The peer.
        goal: The ratio to reach; None if it is only shown.
        work: What the peer does; None is what the line does.
        in_quick: Whether the quick run has time for it.
    """

    library: str
    goal: Goal | None = None
    work: str | None = None
    in_quick: bool = True


@attrs.frozen
class Line:
    """A kind of work, and its comparisons."""

    name: str
    what: str
    against: tuple[Against, ...]

    def rows(self, bench: Bench, payload: Payload, *, shortened: bool = False) -> Iterator[Row]:
        """Measure; a peer that is missing or fails is said to be."""
        for one in self.against:
            if shortened and (one.goal is None or not one.in_quick):
                continue
            yield self._row(bench, payload, one)

    def row(self, bench: Bench, payload: Payload, library: str) -> Row:
        """Measure against one peer."""
        [against] = [one for one in self.against if one.library == library]
        return self._row(bench, payload, against)

    def _row(self, bench: Bench, payload: Payload, against: Against) -> Row:
        row = Row(
            line=self.name,
            what=f"{self.what}, {payload.name}",
            peer=against.library,
            goal=against.goal,
        )
        ours = CONTENDERS[self.name, OURS]
        peer = CONTENDERS.get((against.work or self.name, against.library))
        if peer is None:
            return attrs.evolve(row, note=f"{against.library} is not installed")
        try:
            pair = bench.compare(ours, peer, payload, (bench.loop, bench.loop))
        except Exception as error:  # noqa: BLE001 - the other lines are worth having
            return attrs.evolve(row, note=f"{against.library}: {type(error).__name__}: {error}")
        return attrs.evolve(
            row,
            ours=rate(pair.ours),
            theirs=rate(pair.theirs),
            ratio=pair.ratio,
            ratios=pair.ratios,
        )


_PLAIN = "step_redis without ledger"
_READING = "step_redis reading data"
_BATCHES = "redis-py, batches of 100"
_ONE_BY_ONE = "redis-py, one by one"
_GLIDE = "valkey-glide"
_GLIDE_BATCHES = "valkey-glide, batches of 100"

LINES = (
    Line(
        "lone-asyncio",
        "one publish at a time, asyncio",
        (Against("redis-py", Goal(1.0)), Against(_PLAIN, Goal(0.85))),
    ),
    Line(
        "lone-blocking",
        "one publish at a time, blocking",
        (Against("redis-py", Goal(1.0)), Against(_PLAIN, Goal(0.85))),
    ),
    Line(
        "tasks",
        "200 tasks publish",
        (
            Against(_GLIDE, Goal(4.0)),
            Against("redis-py, blocking pool of 20", Goal(15.0)),
            Against("coredis"),
            Against(_PLAIN, Goal(0.85)),
        ),
    ),
    Line(
        "threads",
        "16 threads publish",
        (
            Against("redis-py", Goal(4.0)),
            Against("valkey-glide-sync", Goal(2.0)),
            Against(_PLAIN, Goal(0.85)),
        ),
    ),
    Line(
        "batch-asyncio",
        "publish_messages, asyncio",
        (Against("redis-py, pipelines", Goal(3.5)), Against(_PLAIN, Goal(0.65))),
    ),
    Line(
        "batch-blocking",
        "publish_messages, blocking",
        (Against("redis-py, pipelines", Goal(2.0)), Against(_PLAIN, Goal(0.65))),
    ),
    Line(
        "run-asyncio",
        "consumer.run, asyncio",
        (
            Against("FastStream", Goal(30.0)),
            Against("taskiq-redis", Goal(30.0)),
            Against(_GLIDE_BATCHES, Goal(1.4)),
            Against(_BATCHES),
            Against(_ONE_BY_ONE),
            Against("coredis, batches of 100"),
            Against(_READING),
        ),
    ),
    Line(
        "run-blocking",
        "consumer.run, blocking",
        (
            Against("FastStream", Goal(30.0), "run-asyncio", in_quick=False),
            Against("taskiq-redis", Goal(30.0), "run-asyncio", in_quick=False),
            Against("valkey-glide-sync, batches of 100", Goal(1.4)),
            Against(_BATCHES),
            Against(_ONE_BY_ONE),
            Against(_READING),
        ),
    ),
    Line(
        "run16-asyncio",
        "consumer.run, 16 tasks",
        (
            Against(OURS, Goal(0.9), "run-asyncio"),
            Against(_GLIDE_BATCHES, Goal(1.26), "run-asyncio", in_quick=False),
        ),
    ),
    Line(
        "run16-blocking",
        "consumer.run, 16 threads",
        (
            Against(OURS, Goal(0.9), "run-blocking"),
            Against(
                "valkey-glide-sync, batches of 100", Goal(1.26), "run-blocking", in_quick=False
            ),
        ),
    ),
    Line(
        "receive-asyncio",
        "receive and acknowledge 100, asyncio",
        (Against(_BATCHES, Goal(1.1)),),
    ),
    Line(
        "receive-blocking",
        "receive and acknowledge 100, blocking",
        (Against(_BATCHES, Goal(1.1)),),
    ),
)


def on_uvloop(bench: Bench) -> Iterator[Row]:
    """Show how much faster asyncio's lines are on uvloop than on the stock loop."""
    for line in LINES:
        ours = CONTENDERS[line.name, OURS]
        if not ours.on_loop:
            continue
        row = Row(line="uvloop", what=f"{line.what}, on uvloop", peer="the stock event loop")
        try:
            pair = bench.compare(ours, ours, SMALL, ("uvloop", "asyncio"))
        except ImportError as error:
            yield attrs.evolve(row, note=str(error))
            continue
        yield attrs.evolve(
            row,
            ours=rate(pair.ours),
            theirs=rate(pair.theirs),
            ratio=pair.ratio,
            ratios=pair.ratios,
        )
