"""What a consumer says of itself: counts, and its health."""

from collections.abc import Sequence
from typing import Any

import attrs

from step_redis.commands import Command, entry_id
from step_redis.keys import GroupKeys

__all__ = [
    "ConsumerHealth",
    "Counters",
    "Probe",
    "StreamHealth",
    "health_commands",
    "is_stuck",
    "stream_health",
]


@attrs.define
class Counters:
    """What a consumer did since it was made; numbers only rise.

    Attributes:
        received: Messages that were delivered to it, again or for the first time.
        redelivered: Those among them that had been delivered before, to whichever consumer.
        acknowledged: Messages that were acknowledged.
        retried: Messages that were put aside after a failure, to be delivered again.
        dead_lettered: Messages that were moved to the dead-letter stream.
        forwarded: Messages that were forwarded to another stream.
        handed_back: Messages that were given back to the group when it stopped.
        taken_over: Messages of dead consumers that it gave back to the group.
        consumers_removed: Dead consumers that it removed from the group.
        moves: How often it went on under a fresh name, after a reply was lost.
        leases_lost: How often it lost its lease, and all that it held with it.
        groups_lost: How often it made the group anew because it was gone.
        handlers_abandoned: Handlers that took too long, could not be ended and were left behind.
    """

    received: int = 0
    redelivered: int = 0
    acknowledged: int = 0
    retried: int = 0
    dead_lettered: int = 0
    forwarded: int = 0
    handed_back: int = 0
    taken_over: int = 0
    consumers_removed: int = 0
    moves: int = 0
    leases_lost: int = 0
    groups_lost: int = 0
    handlers_abandoned: int = 0

    def add(self, name: str, count: int) -> None:
        """Raise a counter; not for users."""
        setattr(self, name, getattr(self, name) + count)


@attrs.frozen(kw_only=True)
class StreamHealth:
    """One stream of a consumer, as the server sees its group. None: the server did not say.

    Attributes:
        stream: The stream.
        lag: Entries that were not delivered yet; None also on Redis 6.2, and after deletions.
        pending: Messages that were delivered and not settled, by all consumers of the group, those
            included that are delayed.
        oldest_pending_seconds: How long ago the oldest of them was published; None if there is
            none.
        delayed: Messages that were put aside until they are due.
        dead_letters: Entries in the dead-letter stream, of all groups.
    """

    stream: str
    lag: int | None = None
    pending: int | None = None
    oldest_pending_seconds: float | None = None
    delayed: int | None = None
    dead_letters: int | None = None


@attrs.frozen(kw_only=True)
class ConsumerHealth:
    """How a consumer is doing.

    Attributes:
        running: Whether it was started and has not ended.
        stuck: Whether there is something to do, and nothing was read or settled for
            ``stuck_seconds``.
        error: Why the server could not be asked; None if it answered.
        seconds_since_read: How long ago it last received messages; None if it never did.
        seconds_since_settled: How long ago it last settled a message; None if it never did.
        ready: Messages that it holds and has not begun to handle.
        handling: Messages that it is handling; those that were handled and wait for their
            acknowledgement, for some milliseconds, are not among them.
        longest_handling_seconds: How long the one has been handled that began first; 0 if none is.
        streams: Each of its streams, in the order in which they were named.
        counters: What it did since it was made.
    """

    running: bool
    stuck: bool
    error: str | None
    seconds_since_read: float | None
    seconds_since_settled: float | None
    ready: int
    handling: int
    longest_handling_seconds: float
    streams: tuple[StreamHealth, ...]
    counters: Counters


@attrs.define
class Probe:
    """What a server is asked, and what it answers if it does."""

    commands: tuple[Command, ...]
    error: str | None = "the server did not answer in time"
    _replies: list[Any] = attrs.field(factory=list)

    def answered(self, replies: list[Any]) -> None:
        """Take note of the answers."""
        self._replies, self.error = replies, None

    @property
    def replies(self) -> list[Any]:
        """The answers; None for each without one."""
        return self._replies or [None] * len(self.commands)


def health_commands(keys: GroupKeys, group: str, dead: str) -> tuple[Command, ...]:
    """Return what `stream_health` reads: each costs the same however much is pending."""
    return (
        ("TIME",),
        ("XINFO", "GROUPS", keys.stream),
        ("XPENDING", keys.stream, group),
        ("ZCARD", keys.due),
        ("XLEN", dead),
    )


def stream_health(stream: str, group: str, replies: Sequence[Any]) -> StreamHealth:
    """Return what the replies to `health_commands` say; error replies say nothing."""
    time, groups, pending, delayed, dead = (
        None if isinstance(reply, Exception) else reply for reply in replies
    )
    lag = next(
        (_lag(info) for info in groups or () if _map(info).get(b"name") == group.encode()), None
    )
    oldest = None
    if time and pending and pending[0]:
        oldest_ms, _ = entry_id(pending[1].decode())
        oldest = max(0.0, int(time[0]) + int(time[1]) / 1e6 - oldest_ms / 1000)
    return StreamHealth(
        stream=stream,
        lag=lag,
        pending=pending[0] if pending else None,
        oldest_pending_seconds=oldest,
        delayed=delayed,
        dead_letters=dead,
    )


def is_stuck(
    health: ConsumerHealth, idle_seconds: float, stuck_seconds: float, *, is_settling: bool
) -> bool:
    """Whether there is something to do, such as to settle, and no progress for so long."""
    has_work = (
        is_settling or health.ready + health.handling > 0 or any(one.lag for one in health.streams)
    )
    return health.running and has_work and idle_seconds >= stuck_seconds


def _map(info: Any) -> dict[bytes, Any]:
    """Return a reply that is a map in RESP3 and a flat list in RESP2 as a map."""
    return info if isinstance(info, dict) else dict(zip(info[::2], info[1::2], strict=True))


def _lag(info: Any) -> int | None:
    lag: int | None = _map(info).get(b"lag")
    return lag
