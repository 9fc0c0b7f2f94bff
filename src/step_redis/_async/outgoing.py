# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""Messages on their way out: who waits, what was sent together, and who sends it."""

from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from itertools import accumulate, chain

import attrs
from redis.exceptions import ResponseError

from step_redis._backend import aio
from step_redis.deadline import now
from step_redis.errors import StepRedisError
from step_redis.ledger import Numbered
from step_redis.publishing import CHUNK_BYTES

_LATE_SECONDS = 0.1


@attrs.define(eq=False)
class Slot:
    """One of the batches that may be on their way.

    It counts as long as somebody holds it, and until it is late.
    """

    messages: int = 0
    began_at: float = attrs.field(factory=now)

    @property
    def is_late(self) -> bool:
        """Whether it has been on its way for so long that others need not wait for it."""
        return now() - self.began_at > _LATE_SECONDS


class Waiting:
    """A message whose caller waits for what becomes of it; one is made for each message."""

    __slots__ = ("failure", "fields", "is_gone", "slot", "ticket", "written")

    def __init__(self, fields: list[bytes]) -> None:
        self.fields = fields
        self.ticket = aio.ticket()
        self.written = ""
        self.failure: Exception | None = None
        self.slot: Slot | None = None
        """What its caller is to send the next batch with."""
        self.is_gone = False
        """Whether its caller was interrupted."""

    def failed(self, error: Exception) -> None:
        """Let its caller raise an error; one of ours is its own, since the call adds to it.

        Others, of a credential provider for example, need not be such that they can be copied.
        """
        if isinstance(error, StepRedisError):
            own = copy(error)
            own.__cause__ = error.__cause__
            error = own
        self.failure = error
        aio.wake(self.ticket)


@attrs.define(eq=False)
class Batch:
    """Messages that are sent together; it is there until all their callers are told."""

    messages: list[Waiting]
    owner: Callable[[], Slot | None]
    """Who sends it; if that is nobody any more, the next one goes on."""
    numbered: Numbered | None = None
    result: tuple[list[str], ResponseError | None] | None = None
    """The ids of those that were written, and why the one behind them was not, if it was not."""
    failure: Exception | None = None


@attrs.define(eq=False)
class Queue:
    """What is not done yet. Messages go from one part to the other by a change of the whole.

    So a KeyboardInterrupt, which may strike between any two steps, finds each in one of them.
    """

    waiting: deque[Waiting] = attrs.field(factory=deque)
    sent: list[Batch] = attrs.field(factory=list)

    def orphans(self) -> list[Batch]:
        """Return the batches whose sender was interrupted."""
        return [sent for sent in self.sent if sent.owner() is None]


def fitting(waiting: Sequence[Waiting]) -> int:
    """Return how many of the first ones fit into a call: one at least."""
    if sum(map(len, chain.from_iterable(one.fields for one in waiting))) <= CHUNK_BYTES:
        return len(waiting)
    sizes = accumulate(sum(map(len, one.fields)) for one in waiting)
    return max(1, sum(size <= CHUNK_BYTES for size in sizes))
