# Generated from _async/settler.py by build_hooks/generate_sync.py. Do not edit.
"""Settlements of one membership, carried out once over lost replies and outages.

Acknowledgements are gathered: what is handled waits until enough do, or nothing else is to be done,
or some milliseconds have passed; then one call acknowledges all that wait, while others gather.
Whoever finds that it is time has them sent, one at a time: in threads it does so itself.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from itertools import islice
from typing import Any

from step_redis import script_calls
from step_redis._backend import threads
from step_redis.backoff import delays
from step_redis.deadline import Deadline, lease_now, now
from step_redis.errors import LeaseLost, NotAStreamError, StepRedisError
from step_redis.lease import Attempt, Held, Outcome
from step_redis.outage import passes_by_itself
from step_redis.place import Place
from step_redis.settlement import Settlement

from .membership import Membership

ENOUGH = 200
"""So many acknowledgements are worth a call."""

MOST = 500
"""So many go with one call; if as many wait, no other message is begun before."""

GATHER_SECONDS = 0.002
"""How long they wait for others while there is something else to do."""

LATE_SECONDS = 0.5
"""If a call takes longer, no other message is begun before it ends."""


class Settler:
    """Settles the messages that a membership holds."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._waiting: deque[Held] = deque()
        """Handled, to be acknowledged; in the order in which they were."""
        self._sent: list[Held] = []
        """Those that are being acknowledged; what is left here without a sender, the next takes."""
        self._sent_at = 0.0
        self._sender: Callable[[], Place | None] = _nobody
        """Held weakly: a sender that was interrupted, wherever, is none any more."""
        self._awaited: dict[Held, StepRedisError | None] = {}
        """Those whose outcome somebody waits for, and why it failed."""
        self._holds_up = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be acknowledged."""
        return not self._waiting and not self._sent

    @property
    def can_send(self) -> bool:
        """Whether something waits that nobody is sending."""
        return not self.is_idle and self._sender() is None

    def holds_up(self, at: float) -> bool:
        """Whether acknowledging lags so far behind that no message is to be begun."""
        behind = len(self._waiting) >= MOST or (
            bool(self._sent) and at - self._sent_at > LATE_SECONDS
        )
        self._holds_up = self._holds_up or behind
        return behind

    def gather(self, held: Held) -> bool:
        """Let a message be acknowledged soon; return whether to send now. The guard is held."""
        held.settling = True
        self._waiting.append(held)
        count = len(self._waiting)
        if count == 1:
            self._membership.gathered.wake()
        return count >= ENOUGH and self._sender() is None

    def acknowledge(self, held: Held) -> None:
        """Acknowledge a message, and wait until the server has confirmed it.

        A caller that is interrupted leaves it to be carried out all the same.

        Raises:
            LeaseLost: It was settled before or is not this consumer's any more.
            StepRedisError: It cannot be carried out; the message is held as before.
        """
        guard = self._membership.shared.guard
        with guard:
            _check_open([held])
            self.gather(held)
            self._awaited[held] = None
        try:
            while True:
                self.send(held)
                with guard:
                    if not held.settling:
                        break
                    if self._sender() is not None:
                        self._membership.settled.wait(None)
        finally:
            failure = self._awaited.pop(held, None)
        if held.outcome is not Outcome.SETTLED:
            # Others may wait for the same call; each failure says whose it is.
            raise copy(failure) if failure is not None else _lost([held], held.outcome)

    def send(self, until: Held | None = None) -> None:
        """Have sent what waits, unless somebody is at it; in threads it is sent on return.

        Args:
            until: Whose sake it is for: when it is settled, the rest is left to others.
        """
        with self._membership.shared.guard:
            if not self.can_send:
                return
            place = Place()
            self._sender = weakref.ref(place)
        threads.start(self._send, place, until)

    def keep_sending(self) -> None:
        """Send what has waited and nobody else sent, until the membership ends."""
        membership = self._membership
        while not membership.is_ending:
            with membership.shared.guard:
                if self.is_idle and not membership.is_ending:
                    membership.gathered.wait(None)
                first = self._waiting[0] if self._waiting else None
            threads.sleep(GATHER_SECONDS)
            with membership.shared.guard:
                is_left = self.can_send and (not self._waiting or self._waiting[0] is first)
            if is_left:
                self.send()

    def drain(self, deadline: Deadline) -> None:
        """Wait until nothing waits to be acknowledged, at most so long."""
        shared = self._membership.shared
        with shared.guard:
            while not self.is_idle and not deadline.passed:
                shared.changed.wait(deadline.left())

    def _send(self, place: Place, until: Held | None) -> None:
        guard, is_first = self._membership.shared.guard, True
        try:
            while True:
                with guard:
                    batch = self._next_batch(until, is_first=is_first)
                    if not batch:
                        self._release()
                        return
                is_first = False
                self._acknowledge(batch)
        except Exception as error:
            self._membership.shared.fail(error)
            raise
        finally:
            with guard:
                if self._sender() is place:
                    self._release()

    def _release(self) -> None:
        self._sender = _nobody
        self._membership.settled.wake()

    def _next_batch(self, until: Held | None, *, is_first: bool) -> list[Held]:
        """Return what is to be sent next; the guard is held."""
        left = [held for held in self._sent if held.settling]
        if left:
            return left
        is_worth_it = len(self._waiting) >= ENOUGH or not self._membership.ready
        if not is_first and not (is_worth_it if until is None else until.settling):
            return []
        # An interrupt in between leaves some in both.
        self._sent = list(islice(self._waiting, MOST))
        for _ in self._sent:
            self._waiting.popleft()
        self._sent_at = lease_now()
        return self._sent

    def _acknowledge(self, batch: list[Held]) -> None:
        failure = None
        try:
            self._carry_out(Settlement(batch, Attempt.FINAL, self._ack, "acknowledged"))
        except StepRedisError as error:
            failure = error
        shared = self._membership.shared
        with shared.guard:
            lost = self._note_end(batch, failure)
        if failure is not None and lost:
            shared.fail(failure)
        elif lost:
            self._tell_lost(lost)

    def _ack(self, name: str, ids: list[str]) -> script_calls.ScriptCall:
        membership = self._membership
        if membership.shared.options.concurrency > 1:
            ids = script_calls.rising(ids)
        # A single worker handles them in their order, but for those that came again.
        return script_calls.ack(
            membership.keys, membership.group, name, ids, delete=membership.redrives
        )

    def _note_end(self, batch: list[Held], failure: StepRedisError | None) -> list[Held]:
        """Let go of a batch; return what was not acknowledged and nobody waits for."""
        shared, lost, count = self._membership.shared, [], 0
        for held in batch:
            held.settling = False
            if held.outcome is Outcome.SETTLED:
                count += 1
            elif held not in self._awaited:
                lost.append(held)
            elif held.outcome is None:
                self._awaited[held] = failure
        self._sent = []
        shared.counters.acknowledged += count
        self._membership.settled.wake()
        if self._holds_up:
            self._holds_up = False
            shared.arrivals.wake()
        if shared.is_over:
            shared.changed.wake()
        return lost

    def _tell_lost(self, lost: list[Held]) -> None:
        membership = self._membership
        membership.shared.logger.error(
            "%d messages of group %r of stream %r were handled and not acknowledged: %s (ids %s%s)",
            *(len(lost), membership.origin_group, membership.origin_stream),
            _lost(lost, lost[0].outcome),
            ", ".join(held.delivery.id for held in lost[:10]),
            ", ..." if len(lost) > 10 else "",
        )

    def settle(self, settlement: Settlement) -> None:
        """Carry out a settlement, once, over as many lost replies and outages as it takes.

        A caller that is interrupted leaves it to be carried out all the same.

        Raises:
            LeaseLost: A message was settled before or is not this consumer's any more.
            StepRedisError: It cannot be carried out; the messages are held as before.
        """
        with self._membership.shared.guard:
            _check_open(settlement.held)
            for held in settlement.held:
                held.settling = True
        job = threads.start(self._settle, settlement)
        job.finished(None)
        job.result()
        if settlement.outcome is not Outcome.SETTLED:
            raise _lost(settlement.held, settlement.outcome)

    def _settle(self, settlement: Settlement) -> None:
        try:
            self._carry_out(settlement)
        finally:
            with self._membership.shared.guard:
                for held in settlement.held:
                    held.settling = False
                if settlement.outcome is Outcome.SETTLED:
                    counters = self._membership.shared.counters
                    counters.add(settlement.counter, len(settlement.held))

    def _carry_out(self, settlement: Settlement) -> None:
        pauses = delays()
        while settlement.open:
            name, tried = self._begin(settlement)
            if tried and not self._try(settlement, name, tried):
                threads.sleep(next(pauses))

    def _begin(self, settlement: Settlement) -> tuple[str, list[Held]]:
        """Wait for a name; return it and the messages that are held under it, to be settled."""
        membership = self._membership
        with membership.shared.guard:
            while (name := membership.member.name) is None and settlement.open:
                # Whatever keeps the keeper from finding one, a lease ends.
                left = membership.member.seconds_left(lease_now())
                if left <= 0:
                    membership.lose("it could not be renewed in time")
                else:
                    membership.changed.wait(left)
            if name is not None and not membership.member.accepts(name, lease_now()):
                membership.lose("it could not be renewed in time")
            tried = settlement.open
            for held in tried:
                held.attempt = settlement.attempt
            return name or "", tried

    def _try(self, settlement: Settlement, name: str, tried: list[Held]) -> bool:
        """Send a settlement; return False if it has to be sent again in a while."""
        ids = [held.delivery.id for held in tried]
        try:
            reply = self._call(settlement.call(name, ids))
        except StepRedisError as error:
            with self._membership.shared.guard:
                if error.outcome_unknown:
                    self._membership.broke(name)
                else:
                    _withdraw(tried)
            if not passes_by_itself(error):
                raise
            return False
        except BaseException:
            # Interrupted, its reply is as good as lost.
            with self._membership.shared.guard:
                self._membership.broke(name)
            raise
        with self._membership.shared.guard:
            if reply[0] == b"OK":
                self._take_note(settlement, tried, settlement.not_owned(ids, reply))
            else:
                _withdraw(tried)
                if self._membership.member.name == name:
                    self._membership.lose("the server knows of none")
        return True

    def _call(self, call: script_calls.ScriptCall) -> list[Any]:
        reply = self._membership.shared.connections.run(
            call, effect="the message may have been settled"
        )
        if reply[0] == b"TYPE":
            raise NotAStreamError("the key to write to holds something else than a stream")
        return reply

    def _take_note(
        self, settlement: Settlement, tried: list[Held], not_owned: frozenset[str]
    ) -> None:
        for held in tried:
            if held.delivery.id in not_owned:
                self._membership.member.was_taken(held)
            else:
                self._membership.member.settled(held)
        self._membership.shared.last_settled = now()
        if settlement.is_due_soon and self._membership.is_open:
            # It may be due before the next beat.
            self._membership.ring()

    def hand_back(self) -> None:
        """Give what is ready back to the group, which delivers it at once, as if it never had."""
        with self._membership.shared.guard:
            held = self._membership.take_all()
        if held:
            try:
                self.settle(
                    Settlement(
                        held,
                        Attempt.PARK,
                        lambda name, ids: script_calls.park(
                            self._membership.keys,
                            self._membership.group,
                            name,
                            ids,
                            delay_ms=0,
                            kind="unstarted",
                        ),
                        "handed_back",
                    )
                )
            except LeaseLost:
                # Then the group gets it back without us.
                return


def _withdraw(tried: Iterable[Held]) -> None:
    """An attempt certainly did not take effect."""
    for held in tried:
        held.attempt = None


def _nobody() -> None:
    """Return who is sending if nobody is."""


def _check_open(several: Iterable[Held]) -> None:
    """Refuse what was settled, is being settled, or cannot be any more."""
    for held in several:
        if held.outcome is not None or held.settling:
            raise _lost([held], held.outcome)


def _lost(several: Iterable[Held], outcome: Outcome | None) -> LeaseLost:
    """Return the failure of settling messages."""
    is_unknown = outcome is Outcome.UNKNOWN
    if any(held.settling or held.outcome is Outcome.SETTLED for held in several):
        text = "the message was settled already, or given up since its handling took too long"
    elif is_unknown:
        text = "the lease ended while a reply was lost: the message may have been settled, or not"
    else:
        text = "the message is not this consumer's any more; it is delivered again"
    return LeaseLost(text, outcome_unknown=is_unknown)
