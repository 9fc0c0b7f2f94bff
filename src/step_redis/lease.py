"""A consumer's membership in a group, without I/O: its names, its lease, and what it holds.

A name is good for one incarnation. After a lost reply nothing is repeated under it: a script moves
everything to a fresh name, and what is still under way under the old one changes nothing any more.
The clock is the caller's own; a lease ends by it before it ends by the server's, since it counts
from the moment when the renewal was sent.
"""

import secrets
from collections.abc import Iterable, Sequence
from enum import Enum, auto

import attrs

from step_redis.messages import Delivery

__all__ = ["STRANDED_SECONDS", "Attempt", "Held", "Member", "Outcome"]


STRANDED_SECONDS = 15
"""After how long a message counts as stranded that its consumer does not know."""


class Outcome(Enum):
    """How it ended for a message that was held."""

    SETTLED = auto()
    """It was acknowledged, put aside, moved or handed back, by whoever held it."""
    LOST = auto()
    """The lease was lost first: nothing was changed."""
    UNKNOWN = auto()
    """The lease was lost while the reply to a settlement was: it may have been carried out."""


class Attempt(Enum):
    """A settlement that was sent, whose reply is awaited or lost."""

    FINAL = auto()
    """After it, the group does not deliver the message any more."""
    PARK = auto()
    """After it, the group delivers the message again."""


@attrs.define(eq=False)
class Held(Delivery):
    """A message that was delivered to a consumer and is not settled yet.

    It is the delivery itself, with what becomes of it: one object for each message.
    """

    attempt: Attempt | None = None
    settling: bool = False
    """Whether somebody is settling it, over as many attempts as it takes."""
    outcome: Outcome | None = None
    came_at: float = 0
    """When it was made ready."""
    started_at: float | None = None
    """When its handling began; None while it waits for that."""

    @classmethod
    def of(cls, delivery: Delivery) -> "Held":
        """Return a delivery as held from now on."""
        of_server = delivery.id, delivery.fields, delivery.count
        return cls(*of_server, delivery.lost, delivery.interrupted)


@attrs.define(eq=False)
class Member:
    """The state of one consumer in one group. It is guarded by whoever shares it."""

    base: str
    """What all its names begin with."""
    lease_seconds: float
    name: str | None = None
    """Under which it acts; None before it joined, after a lost reply, and without a lease."""
    old_names: list[str] = attrs.field(factory=list)
    """Names under which a reply was lost: what they hold has to be moved to a fresh one."""
    held: dict[str, Held] = attrs.field(factory=dict)
    _ends_at: float = 0
    _unknown: tuple[str, float] = ("", 0)
    """A message that is pending under its name and that it does not hold, and since when."""

    def fresh_name(self) -> str:
        """Return a name that was never used: a token that only its owner knows makes it so."""
        return f"{self.base}~{secrets.token_hex(8)}"

    def is_alive(self, at: float) -> bool:
        """Whether it certainly has its lease, under whichever name."""
        return (self.name is not None or bool(self.old_names)) and at < self._ends_at

    def accepts(self, name: str, at: float) -> bool:
        """Whether a reply to something sent under that name counts."""
        return name == self.name and at < self._ends_at

    def has_expired(self, at: float) -> bool:
        """Whether it had a lease that is over by its own clock."""
        return (self.name is not None or bool(self.old_names)) and at >= self._ends_at

    def seconds_left(self, at: float) -> float:
        """How long it certainly has its lease, by its own clock."""
        return self._ends_at - at

    def joined(self, name: str, sent_at: float, at: float, moved: Iterable[Delivery]) -> list[Held]:
        """It joined under a fresh name; return what it holds and had not seen.

        What it held and was not moved was settled by an attempt of its own. What was moved with
        another count is another delivery: it was put aside and taken again.
        """
        deliveries = {delivery.id: delivery for delivery in moved}
        if deliveries and not self.old_names:
            # It was given up meanwhile: others get these when the lease that nobody uses ends.
            return []
        self.name, self.old_names, self._ends_at = name, [], sent_at + self.lease_seconds
        if at >= self._ends_at:
            self.lose()
            return []
        for message_id, held in list(self.held.items()):
            delivery = deliveries.get(message_id)
            if delivery is not None and delivery.count == held.count:
                held.attempt = None
            elif held.attempt is Attempt.PARK or (held.attempt and delivery is None):
                self._end(held, Outcome.SETTLED)
            else:
                self._end(held, Outcome.LOST)
        return self._hold(
            delivery for delivery in deliveries.values() if delivery.id not in self.held
        )

    def join_was_lost(self, name: str) -> None:
        """The reply to joining under that name was lost: another fresh name is needed."""
        if self.old_names:
            self.old_names.append(name)

    def broke(self, name: str) -> None:
        """A reply was lost under that name."""
        if name == self.name:
            self.old_names.append(name)
            self.name = None

    def renewed(self, name: str, sent_at: float) -> None:
        """The lease was renewed by something sent at that time."""
        if name == self.name:
            self._ends_at = sent_at + self.lease_seconds

    def read(self, name: str, deliveries: Sequence[Delivery], at: float) -> list[Held] | None:
        """New messages were read; return those that it holds from now on.

        None: the lease is lost. It ended before they came, and must not be renewed after that: they
        are pending all the same. Or they tell that the group is another one.
        """
        if name != self.name:
            return []
        if self._ended(at):
            return None
        if not self.held.keys().isdisjoint([delivery.id for delivery in deliveries]):
            self.lose()
            return None
        return self._hold(deliveries)

    def took(self, name: str, deliveries: Sequence[Delivery], at: float) -> list[Held] | None:
        """Parked messages were taken; as `read`. To be told before `renewed`, if it was both.

        One may be here whose parking is still unanswered: then that is what took effect.
        """
        if name != self.name:
            return []
        if self._ended(at):
            return None
        before = [self.held[one.id] for one in deliveries if one.id in self.held]
        if any(held.attempt is not Attempt.PARK for held in before):
            self.lose()
            return None
        for held in before:
            self._end(held, Outcome.SETTLED)
        return self._hold(deliveries)

    def is_stranded(self, lowest: str, at: float) -> bool:
        """Whether the lowest id that is pending under its name has long been unknown to it.

        No reply takes so long. It is how a consumer looks to which a server that has forgotten
        its latest writes gives back what was settled, as after a failover.
        """
        if not lowest or lowest in self.held:
            self._unknown = ("", at)
        elif self._unknown[0] != lowest:
            self._unknown = (lowest, at)
        return at - self._unknown[1] > STRANDED_SECONDS and bool(self._unknown[0])

    def settled(self, held: Held) -> None:
        """A settlement was confirmed.

        That comes too late if a move has brought the message since: it was put aside, taken again,
        and is held.
        """
        if held.attempt is not None:
            self._end(held, Outcome.SETTLED)

    def settled_all(self, several: Iterable[Held]) -> None:
        """Settlements were confirmed; as `settled` of each, by fewer calls."""
        known = self.held
        for held in several:
            if held.attempt is None:
                continue
            if held.outcome is None:
                held.outcome = Outcome.SETTLED
            if known.get(held.id) is held:
                del known[held.id]

    def was_taken(self, held: Held) -> None:
        """The message was not pending with this consumer: another program took it."""
        self._end(held, Outcome.LOST)

    def lose(self) -> None:
        """The lease is lost, and with it all that is held."""
        for held in list(self.held.values()):
            self._end(held, Outcome.UNKNOWN if held.attempt else Outcome.LOST)
        self.name, self.old_names, self._ends_at = None, [], 0

    def _ended(self, at: float) -> bool:
        if self.has_expired(at):
            self.lose()
            return True
        return False

    def _hold(self, deliveries: Iterable[Delivery]) -> list[Held]:
        new = [one if type(one) is Held else Held.of(one) for one in deliveries]
        self.held.update({held.id: held for held in new})
        return new

    def _end(self, held: Held, outcome: Outcome) -> None:
        if held.outcome is None:
            held.outcome = outcome
        if self.held.get(held.id) is held:
            del self.held[held.id]
