"""What one consumer received and did not hand over yet, and what may have been lost on its way."""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import attrs

from step_redis.commands import EntryId, Pending, entry_id
from step_redis.messages import ReceivedMessage

__all__ = ["Inbox"]

P = ParamSpec("P")
R = TypeVar("R")

_MARGIN_SECONDS = 1.0
"""A read ends on the server this long after its BLOCK at the latest, counted from a moment
when the server was seen alive."""


@attrs.define
class _LostRead:
    """Reads whose reply never came; on the server they may still be waiting, and take messages."""

    after: EntryId
    """All that they can have taken has a higher id."""
    block_seconds: float
    over_at: float | None = None
    """When they must have ended; None until the server was seen alive."""


def _guarded(method: Callable[Concatenate["Inbox", P], R]) -> Callable[Concatenate["Inbox", P], R]:
    """Let one thread at a time in: calls past the reader's turn change the inbox too."""

    @wraps(method)
    def guarded(self: "Inbox", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.guard:
            return method(self, *args, **kwargs)

    return guarded


@attrs.define(eq=False)
class Inbox:
    """The state of one consumer of one group, without I/O; times are passed in.

    A group gives out ids in rising order. So what a lost read took are the consumer's pending
    messages above the highest id that was received when the read was sent, without those that
    were received since. That needs no memory of all that was handed over, and none of what was
    acknowledged elsewhere. (What a lost read took after the group was set back is not found so;
    it stays pending.)

    A KeyboardInterrupt may strike between any two steps. So related values change in one, and a
    read counts as lost until its end was noted.
    """

    _ready: list[ReceivedMessage] = attrs.field(factory=list)
    _top: EntryId = (0, 0)
    _sent_at: EntryId = (0, 0)
    _since: frozenset[str] = frozenset()
    """Received since the oldest lost read was sent, by whatever way."""
    _meanwhile: frozenset[str] = frozenset()
    """Received by another way while the read that is under way was."""
    _block_seconds: float | None = None
    """How long the read that is under way may wait on the server; None if there is none."""
    _lost: _LostRead | None = None
    guard: threading.RLock = attrs.field(factory=threading.RLock, repr=False)

    @property
    def ready(self) -> bool:
        """Whether something waits to be handed over."""
        return bool(self._ready)

    @property
    def lost_after(self) -> EntryId | None:
        """The id above which messages may have been lost; None if none can have been."""
        return None if self._lost is None else self._lost.after

    @_guarded
    def read_sent(self, block_seconds: float) -> None:
        """A read of new messages is about to be sent, which may wait so long on the server."""
        self._sent_at, self._meanwhile = self._top, frozenset()
        if self._lost is None:
            self._since = frozenset()
        self._block_seconds = block_seconds

    @_guarded
    def arrived(self, messages: Sequence[ReceivedMessage]) -> None:
        """The read was answered with these, in rising order."""
        top, since, meanwhile, lost = self._top, self._since, self._meanwhile, self._lost
        if messages and entry_id(messages[0]["id"]) <= self._sent_at:
            # The group was set back or made anew: what it delivers, it delivers again.
            top, since, meanwhile = (0, 0), frozenset(), frozenset()
            if lost is not None:
                lost = attrs.evolve(lost, after=(0, 0))
        if messages:
            top = max(top, entry_id(messages[-1]["id"]))
        kept = [message for message in messages if message["id"] not in meanwhile]
        ready = self._ready + kept
        since = since.union([message["id"] for message in kept])
        self._ready, self._since, self._top = ready, since, top
        self._lost, self._block_seconds = lost, None

    @_guarded
    def read_refused(self) -> None:
        """The read was not sent, or was answered with an error: it took nothing."""
        self._block_seconds = None

    @_guarded
    def read_lost(self) -> None:
        """The read is over; unless its end was noted, it may have taken messages."""
        if self._block_seconds is not None:
            lost = self._lost or _LostRead(self._sent_at, 0)
            after = min(lost.after, self._sent_at)
            lost = _LostRead(after, max(lost.block_seconds, self._block_seconds))
            self._lost, self._block_seconds = lost, None

    @_guarded
    def unseen(self, pending: Iterable[Pending]) -> list[Pending]:
        """Return those that were never received: lost reads took them."""
        return [message for message in pending if message.id not in self._since]

    @_guarded
    def recovered(self, messages: Sequence[ReceivedMessage]) -> None:
        """What a lost read took was fetched."""
        fetched = [message for message in messages if message["id"] not in self._since]
        ids = [message["id"] for message in fetched]
        since, top = _with(self._since, self._top, ids)
        meanwhile = self._meanwhile.union(ids)
        ready = self._ready + fetched
        self._ready, self._since, self._top, self._meanwhile = ready, since, top, meanwhile

    @_guarded
    def searched(self, asked_at: float, answered_at: float) -> None:
        """All pending messages were looked through, and nothing was unseen."""
        if self._lost is None:
            return
        if self._lost.over_at is None:
            self._lost.over_at = answered_at + self._lost.block_seconds + _MARGIN_SECONDS
        elif asked_at >= self._lost.over_at:
            self._lost = None

    @_guarded
    def handed_elsewhere(self, ids: Iterable[str]) -> None:
        """Another call handed these over; a read under way or a lost one may bring them again."""
        handed = frozenset(ids)
        since, top = _with(self._since, self._top, handed)
        meanwhile = self._meanwhile | handed
        if self._block_seconds is None:
            meanwhile = frozenset()
            if self._lost is None:
                since = frozenset()
        ready = [message for message in self._ready if message["id"] not in handed]
        self._ready, self._since, self._top, self._meanwhile = ready, since, top, meanwhile

    @_guarded
    def group_is_gone(self) -> None:
        """There is no group: whatever was pending in it is gone.

        A lost read may still wait on the server, which 6.2 serves from a group made anew.
        """
        lost = self._lost and attrs.evolve(self._lost, after=(0, 0), over_at=None)
        self._top, self._sent_at, self._lost = (0, 0), (0, 0), lost
        self._since = self._meanwhile = frozenset()

    @_guarded
    def peek(self, count: int) -> list[ReceivedMessage]:
        """Return what is to be handed over next."""
        return self._ready[:count]

    @_guarded
    def drop(self, messages: list[ReceivedMessage]) -> None:
        """These are being handed over."""
        if self._ready[: len(messages)] == messages:
            del self._ready[: len(messages)]
        else:
            # Another call handed some of them over since they were looked at.
            dropped = {message["id"] for message in messages}
            self._ready = [message for message in self._ready if message["id"] not in dropped]

    @_guarded
    def put_back(self, messages: Sequence[ReceivedMessage]) -> None:
        """Handing over was interrupted, before or after they were dropped."""
        kept = {message["id"] for message in self._ready}
        self._ready[:0] = [message for message in messages if message["id"] not in kept]


def _with(
    received: frozenset[str], top: EntryId, ids: Iterable[str]
) -> tuple[frozenset[str], EntryId]:
    """Return what is received with some ids more, and the highest of all ids."""
    ids = list(ids)
    return received.union(ids), max((top, *map(entry_id, ids)))
