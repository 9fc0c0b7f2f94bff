"""What one consumer received and did not hand over yet, and what may have been lost on its way."""

from collections.abc import Iterable, Sequence

import attrs

from step_redis.commands import EntryId, Pending, entry_id
from step_redis.messages import Delivery

__all__ = ["Inbox"]

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


@attrs.define(eq=False)
class Inbox:
    """The state of one consumer of one group, without I/O; times are passed in.

    A group gives out ids in rising order. So what a lost read took are the consumer's pending
    messages above the highest id that was received when the read was sent, without those that
    were received since. That needs no memory of all that was handed over, and none of what was
    acknowledged elsewhere.
    """

    _ready: list[Delivery] = attrs.field(factory=list)
    _top: EntryId = (0, 0)
    _sent_at: EntryId = (0, 0)
    _since: set[str] = attrs.field(factory=set)
    """Received since the oldest lost read was sent, by whatever way."""
    _meanwhile: set[str] = attrs.field(factory=set)
    """Received by another way while the read that is under way was."""
    _reading: bool = False
    _lost: _LostRead | None = None

    @property
    def ready(self) -> bool:
        """Whether something waits to be handed over."""
        return bool(self._ready)

    @property
    def lost_after(self) -> EntryId | None:
        """The id above which messages may have been lost; None if none can have been."""
        return None if self._lost is None else self._lost.after

    def read_sent(self) -> None:
        """A read of new messages is about to be sent; one of the next three tells its end."""
        self._reading = True
        self._sent_at = self._top
        self._meanwhile.clear()
        if self._lost is None:
            self._since.clear()

    def arrived(self, deliveries: Sequence[Delivery]) -> None:
        """The read was answered with these."""
        self._reading = False
        if deliveries and entry_id(deliveries[0].id) <= self._sent_at:
            # The group was set back or made anew: what it delivers, it delivers again.
            self._top = (0, 0)
            self._since.clear()
            self._meanwhile.clear()
            if self._lost is not None:
                self._lost.after = (0, 0)
        self._keep(delivery for delivery in deliveries if delivery.id not in self._meanwhile)

    def read_refused(self) -> None:
        """The read was not sent, or was answered with an error: it took nothing."""
        self._reading = False

    def read_lost(self, block_seconds: float) -> None:
        """The read may have been sent, and its reply will not be seen."""
        self._reading = False
        lost = self._lost or _LostRead(self._sent_at, block_seconds)
        self._lost = _LostRead(
            min(lost.after, self._sent_at), max(lost.block_seconds, block_seconds)
        )

    def unseen(self, pending: Iterable[Pending]) -> list[Pending]:
        """Return those that were never received: lost reads took them."""
        received = self._received()
        return [message for message in pending if message.id not in received]

    def recovered(self, deliveries: Sequence[Delivery]) -> None:
        """What a lost read took was fetched."""
        received = self._received()
        fetched = [delivery for delivery in deliveries if delivery.id not in received]
        if self._reading:
            self._meanwhile.update(delivery.id for delivery in fetched)
        self._keep(fetched)

    def searched(self, asked_at: float, answered_at: float) -> None:
        """All pending messages were looked through, and nothing was unseen."""
        if self._lost is None:
            return
        if self._lost.over_at is None:
            self._lost.over_at = answered_at + self._lost.block_seconds + _MARGIN_SECONDS
        elif asked_at >= self._lost.over_at:
            self._lost = None

    def handed_elsewhere(self, ids: Iterable[str]) -> None:
        """Another call handed these over; a read under way or a lost one may bring them again."""
        handed = set(ids)
        if self._reading:
            self._meanwhile |= handed
        if self._reading or self._lost is not None:
            self._since |= handed
        self._top = max((self._top, *map(entry_id, handed)))
        self._ready = [delivery for delivery in self._ready if delivery.id not in handed]

    def group_is_gone(self) -> None:
        """There is no group: whatever was pending in it is gone."""
        self._top = (0, 0)
        self._since.clear()
        self._meanwhile.clear()
        self._lost = None

    def peek(self, count: int) -> list[Delivery]:
        """Return what is to be handed over next."""
        return self._ready[:count]

    def drop(self, deliveries: list[Delivery]) -> None:
        """These are being handed over."""
        # Noted when they came, unless an interrupt struck just then.
        self._note(deliveries)
        if self._ready[: len(deliveries)] == deliveries:
            del self._ready[: len(deliveries)]
        else:
            # Another call handed some of them over since they were looked at.
            dropped = {delivery.id for delivery in deliveries}
            self._ready = [delivery for delivery in self._ready if delivery.id not in dropped]

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Handing over was interrupted, before or after they were dropped."""
        kept = {delivery.id for delivery in self._ready}
        self._ready[:0] = [delivery for delivery in deliveries if delivery.id not in kept]

    def _received(self) -> set[str]:
        return self._since.union(delivery.id for delivery in self._ready)

    def _keep(self, deliveries: Iterable[Delivery]) -> None:
        kept = list(deliveries)
        self._ready += kept
        self._note(kept)

    def _note(self, received: Iterable[Delivery]) -> None:
        ids = [delivery.id for delivery in received]
        self._since.update(ids)
        self._top = max((self._top, *map(entry_id, ids)))
