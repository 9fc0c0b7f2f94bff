"""Who may take a message from whom: each change of hands that a request may make."""

import attrs

from model.evidence import Evidence
from model.truth import PARKED, Row, Token, Truth
from model.world import Request


@attrs.define(eq=False)
class Ownership:
    """Accounts for the messages that changed hands when one request was executed.

    Args:
        evidence: What is known.
        request: What was executed.
        had_lease: Whether its sender had a lease before.
    """

    evidence: Evidence
    request: Request
    had_lease: bool
    truth: Truth = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.truth = self.evidence.truths[self.request.group]

    def count_after(self, message_id: str, was: Row | None, row: Row | None) -> int | None:
        """Return how many deliveries a message must have now; None if it is not pending any more.

        Raises:
            InvariantError: The request may not do this to it.
        """
        rule = getattr(self, f"_{self.request.kind}", None)
        count = rule(message_id, was, row and row.consumer) if rule else None
        if count is not None:
            return int(count)
        if row is None and message_id in self.request.settled:
            return None
        stream = self.request.group.stream
        if row is None and not self.evidence.world.has_entry(stream, message_id):
            self.truth.vanish(message_id)
            return None
        raise self.evidence.violated(
            "changed hands for no reason", message_id, was, row, self.request
        )

    def _read(self, message_id: str, was: Row | None, heir: str | None) -> int | None:
        """New messages are delivered for the first time."""
        if heir != self.request.name or not (was is None or message_id in self.truth.odd):
            return None
        self.truth.lives[message_id] += 1
        self.truth.failures.pop(message_id, None)
        self.truth.forgotten.pop(message_id, None)
        return 1

    def _ack(self, message_id: str, was: Row | None, heir: str | None) -> None:
        """Its owner settles a message while its lease lives."""
        if self._is_mine(was) and heir is None and message_id in self.request.about["ids"]:
            self.truth.settle(message_id)
            self.request.settled.add(message_id)

    _copy = _ack

    def _park(self, message_id: str, was: Row | None, heir: str | None) -> int | None:
        """Its owner puts a message aside while its lease lives."""
        if message_id not in self.request.about["ids"]:
            return None
        return self._put_aside(message_id, was, heir, self.request.about["counts_as"])

    def _leave(self, message_id: str, was: Row | None, heir: str | None) -> int | None:
        """Its owner hands a message back while its lease lives."""
        is_started = message_id in self.request.about["ids"]
        return self._put_aside(message_id, was, heir, "interrupted" if is_started else "unstarted")

    def _poll(self, message_id: str, was: Row | None, heir: str | None) -> int | None:
        """What is parked is taken when it is due; what the dead left is parked or taken."""
        truth, now, name = self.truth, self.evidence.world.now, self.request.name
        if was is None or not self.had_lease or heir not in (PARKED, name):
            return None
        if was.consumer == PARKED:
            if truth.due.pop(message_id, now) > now:
                raise self.evidence.violated("taken before it was due", message_id, self.request)
            return was.count + 1
        if truth.alive(was.consumer, now):
            raise self.evidence.violated("taken from a live consumer", message_id, was, heir)
        truth.lost[message_id] += 1
        if heir == name:
            return was.count + 1
        truth.due[message_id] = now
        return was.count

    def _join(self, message_id: str, was: Row | None, heir: str | None) -> int | None:
        """The messages of older names move to the fresh one."""
        is_moved = was and was.consumer in self.request.about["old_names"]
        return was.count if was and is_moved and heir == self.request.name else None

    def _redrive(self, message_id: str, was: Row | None, heir: str | None) -> int | None:
        """A dead letter comes as if it had never been delivered."""
        if was is not None or heir != PARKED:
            return None
        self.truth.due[message_id] = self.evidence.world.now
        return 0

    def _is_mine(self, was: Row | None) -> bool:
        return was is not None and was.consumer == self.request.name and self.had_lease

    def _put_aside(
        self, message_id: str, was: Row | None, heir: str | None, counts_as: str
    ) -> int | None:
        if was is None or not self._is_mine(was) or heir != PARKED:
            return None
        truth = self.truth
        delivery = Token(truth.epoch, message_id, truth.lives[message_id], was.count)
        was_started = delivery in self.evidence.started
        if message_id not in truth.odd and was_started == (counts_as == "unstarted"):
            raise self.evidence.violated(
                f"a delivery counted as {counts_as}", delivery, self.request
            )
        self.request.settled.add(message_id)
        truth.due[message_id] = self.evidence.world.now + self.request.about.get("delay_ms", 0)
        if counts_as == "unstarted":
            return max(was.count - 1, 0)
        records = {
            "failed": truth.failures,
            "lost": truth.lost,
            "interrupted": truth.interrupted,
        }
        records[counts_as][message_id] += 1
        return was.count
