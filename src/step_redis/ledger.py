"""What a producer numbers so that it takes effect once, however often it is sent; no I/O.

A lane is one producer of one stream, with a ledger of its own beside it. A call has it for itself,
so that numbers need no order among several callers, and gives it back when all that it sent is
resolved. A lane of which something is not resolved is given up.
"""

import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs

from step_redis.commands import Argument
from step_redis.deadline import lease_now
from step_redis.errors import StepRedisError
from step_redis.failures import no_stream
from step_redis.keys import derived_key
from step_redis.recent import Recent
from step_redis.script_calls import ScriptCall
from step_redis.scripts import script

__all__ = ["LEDGER_SECONDS", "Lane", "Lanes", "Numbered", "Operation"]

LEDGER_SECONDS = 900
"""How long the server remembers what a producer did last, or up to a minute less.

Nothing is repeated for that long.
"""

_KEPT_SECONDS = 60
"""How long that is enough: the server is told the time with one operation a minute."""


@attrs.define(eq=False)
class Lane:
    """A producer of one stream."""

    stream: str
    ledger: str
    """The key of what the server remembers of it."""
    number: int = 0
    """The number that was used last."""
    home: deque["Lane"] | None = None
    """Where it was taken from."""
    used_at: float = attrs.field(factory=lease_now)
    kept_at: float | None = None
    """When an operation was numbered that tells how long to keep the ledger; None asks for one."""

    @classmethod
    def fresh(cls, stream: str, home: deque["Lane"] | None = None) -> "Lane":
        """Return a producer that has done nothing yet.

        Raises:
            ConfigurationError: No key beside the stream can share its Cluster slot.
        """
        return cls(stream, derived_key(stream, f"ledger:{secrets.token_hex(8)}"), home=home)

    @property
    def is_stale(self) -> bool:
        """Whether its ledger may expire before something reaches the server."""
        return lease_now() - self.used_at > LEDGER_SECONDS / 2


class Lanes:
    """The lanes that nobody has just now; shared by tasks and threads."""

    def __init__(self) -> None:
        # After a fork they are the parent's: both would use the same numbers.
        self._idle: Recent[deque[Lane]] = Recent(lambda _: deque(), LEDGER_SECONDS)

    def take(self, stream: str) -> Lane:
        """Return a lane of a stream: the one that was used last, so that few are in use."""
        idle = self._idle.of(stream)
        while True:
            try:
                lane = idle.pop()
            except IndexError:
                return Lane.fresh(stream, idle)
            if not lane.is_stale:
                return lane

    def give(self, lane: Lane) -> None:
        """Take back a lane all of whose operations are resolved."""
        # Where nobody looks any more, after a fork say, it is not used any more.
        if lane.home is not None:
            lane.home.append(lane)


@attrs.define(eq=False)  # frozen, it would take three times as long to make
class Operation:
    """What is to be done once: a script that begins as ledger.lua says."""

    script: str
    args: tuple[Argument, ...] = attrs.field(repr=False)
    """What follows number and time in its arguments."""
    more_keys: tuple[str, ...] = ()
    """What follows stream and ledger in its keys."""
    effect: str = "the entry may have been written"
    """What may have happened if its reply is lost."""


@attrs.define(eq=False)
class Numbered:
    """An operation under a number, until it is resolved."""

    operation: Operation
    lane: Lane
    number: int = 0
    lost: StepRedisError | None = None
    """The loss of a reply, if one was lost: it may have taken effect, or may do so yet."""

    _numbered_at: float = attrs.field(init=False)
    _keeps: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._take_number()

    def _take_number(self) -> None:
        lane = self.lane
        lane.number += 1
        self.number = lane.number
        at = self._numbered_at = lane.used_at = lease_now()
        self._keeps = lane.kept_at is None or at - lane.kept_at > _KEPT_SECONDS
        if self._keeps:
            lane.kept_at = at

    def call(self) -> ScriptCall:
        """Return what to send, as often as it takes."""
        operation, lane = self.operation, self.lane
        return ScriptCall(
            script(operation.script),
            (lane.stream, lane.ledger, *operation.more_keys),
            (self.number, LEDGER_SECONDS * 1000 if self._keeps else 0, *operation.args),
        )

    def read(self, reply: Sequence[Any]) -> bytes | None:
        """Return the result that the script replied; None if it is to be sent anew.

        Raises:
            StepRedisError: It cannot be carried out, or nobody knows whether it was.
        """
        code, *results = reply
        if code == b"DONE":
            result: bytes = results[0]
            return result
        if code == b"MISSING":
            # What was lost may arrive yet, when somebody has made the stream.
            raise self.lost or no_stream()
        if code == b"OLD" or (code == b"GONE" and self.lost is not None):
            raise self.forgotten()
        # What the server remembers is gone, or older than what was done before this one: under this
        # number nothing took effect that is there, nor can anything any more.
        self._start_anew()
        return None

    def _start_anew(self) -> None:
        self.lane = Lane.fresh(self.lane.stream, self.lane.home)
        self.lost = None
        self._take_number()

    @property
    def age_seconds(self) -> float:
        """How long ago it got its number."""
        return lease_now() - self._numbered_at

    @property
    def is_too_old(self) -> bool:
        """Whether it may not be repeated any more: its ledger may be gone, as if it were new."""
        return self.age_seconds > LEDGER_SECONDS / 2

    def interrupted(self) -> None:
        """Whoever sent it does not wait for its reply: that is as good as lost."""
        self.lost = self.lost or StepRedisError(
            f"whoever published was interrupted: {self.operation.effect}", outcome_unknown=True
        )

    def withdraw(self) -> bool:
        """Give the number up; return whether the lane can be used on.

        It can if no reply to its last number was lost: nothing is on its way, then.
        """
        if self.lost is not None or self.number != self.lane.number:
            return False
        self.lane.number -= 1
        self.lane.kept_at = None
        return True

    def forgotten(self) -> StepRedisError:
        """Return the failure that the server does not remember what came of it."""
        return StepRedisError(
            f"the server does not remember any more what came of this: {self.operation.effect}",
            outcome_unknown=True,
        )
