# Generated from _async/outgoing.py by build_hooks/generate_sync.py. Do not edit.
"""Messages on their way out: who waits, what was sent together, and who sends it."""

from collections import deque
from collections.abc import Callable
from copy import copy

import attrs
from redis.exceptions import ResponseError

from step_redis._backend import threads
from step_redis.ledger import Numbered


@attrs.define(eq=False)
class Slot:
    """One of the batches that may be on their way.

    It counts as long as somebody holds it.
    """

    messages: int = 0


class Waiting:
    """A message whose caller waits for what becomes of it; one is made for each message."""

    __slots__ = ("failure", "fields", "is_gone", "slot", "ticket", "written")

    def __init__(self, fields: list[bytes]) -> None:
        self.fields = fields
        self.ticket = threads.ticket()
        self.written = ""
        self.failure: Exception | None = None
        self.slot: Slot | None = None
        """What its caller is to send the next batch with."""
        self.is_gone = False
        """Whether its caller was interrupted."""

    def failed(self, error: Exception) -> None:
        """Let its caller raise an error, which is its own, since the call adds to it."""
        self.failure = copy(error)
        self.failure.__cause__ = error.__cause__
        threads.wake(self.ticket)


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
