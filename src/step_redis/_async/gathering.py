# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""Acknowledgements of one membership, gathered.

What is handled waits until enough is, or nothing else is to be done, or some milliseconds have
passed; then one call acknowledges all that waits, while others gather. Whoever finds that it is
time has them sent, one call at a time: in threads it does so itself.
"""

import weakref
from collections import deque
from collections.abc import Callable
from copy import copy
from itertools import islice
from math import inf
from operator import attrgetter

from step_redis import script_calls
from step_redis._backend import aio
from step_redis.deadline import lease_now
from step_redis.errors import StepRedisError
from step_redis.lease import Attempt, Held, Outcome
from step_redis.place import Place, nobody
from step_redis.settlement import Settlement

from .membership import Membership
from .settler import Settler, check_open, lost_error

ENOUGH = 200
"""So many acknowledgements are worth a call."""

MOST = 500
"""So many go with one call; if as many wait, no other message is begun before."""

GATHER_SECONDS = 0.002
"""How long they wait for others while there is something else to do."""

LATE_SECONDS = 0.5
"""If a call takes longer, no other message is begun before it ends."""


_started_at = attrgetter("started_at")


class Gathering:
    """Acknowledges what was handled of the messages that a membership holds."""

    def __init__(self, membership: Membership, settler: Settler) -> None:
        self._membership, self._settler = membership, settler
        self._waiting: deque[Held] = deque()
        """Handled, to be acknowledged; in the order in which they were."""
        self._sent: list[Held] = []
        """Those that are being acknowledged; what is left here without a sender, the next takes."""
        self._sent_at = 0.0
        self._sender: Callable[[], Place | None] = nobody
        """Held weakly: a sender that was interrupted, wherever, is none any more."""
        self._awaited: dict[Held, StepRedisError | None] = {}
        """Those whose outcome somebody waits for, and why it failed."""
        self.stops_at = inf
        """From when on no other message is to be begun, since acknowledging lags so far behind."""
        self._holds_up = False
        """Whether that kept one from being begun."""
        self.is_untold = False
        """Whether something waits of which `keep_sending` was not told: whoever gathered it, or is
        sending meanwhile, sends it soon or tells."""
        self._job: aio.Job | None = None
        """What sends, kept from the garbage collector."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be acknowledged."""
        return not self._waiting and not self._sent

    @property
    def can_send(self) -> bool:
        """Whether something waits that nobody is sending."""
        return not self.is_idle and self._sender() is None

    def held_up(self) -> None:
        """A message was not begun because of ``stops_at``; the guard is held."""
        self._holds_up = True

    def gather(self, held: Held) -> bool:
        """Let a message be acknowledged soon; return whether to send now. The guard is held."""
        held.settling = True
        waiting = self._waiting
        waiting.append(held)
        count = len(waiting)
        if count == 1:
            self.is_untold = True
        elif count >= MOST:
            self.stops_at = 0.0
        return count >= ENOUGH and self._sender() is None

    def tell(self) -> None:
        """Let `keep_sending` send what waits, if nobody else does; the guard is held."""
        self.is_untold = False
        self._membership.gathered.wake()

    async def acknowledge(self, held: Held) -> None:
        """Acknowledge a message, and wait until the server has confirmed it.

        A caller that is interrupted leaves it to be carried out all the same.

        Raises:
            LeaseLost: It was settled before or is not this consumer's any more.
            StepRedisError: It cannot be carried out; the message is held as before.
        """
        guard = self._membership.shared.guard
        with guard:
            check_open([held])
            self.gather(held)
            # An interrupted caller sends nothing.
            self.tell()
            self._awaited[held] = None
        try:
            while True:
                self.send(held)
                with guard:
                    if not held.settling:
                        break
                    if self._sender() is not None:
                        await self._membership.settled.wait(None)
        finally:
            failure = self._awaited.pop(held, None)
        if held.outcome is not Outcome.SETTLED:
            # Others may wait for the same call; each failure says whose it is.
            raise copy(failure) if failure is not None else lost_error([held], held.outcome)

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
        self._job = aio.start(self._send, place, until)

    async def keep_sending(self) -> None:
        """Send what has waited and nobody else sent, until the membership ends."""
        membership = self._membership
        while not membership.is_ending:
            with membership.shared.guard:
                if self.is_idle and not membership.is_ending:
                    await membership.gathered.wait(None)
                first = self._waiting[0] if self._waiting else None
            await aio.sleep(GATHER_SECONDS)
            with membership.shared.guard:
                is_left = self.can_send and (not self._waiting or self._waiting[0] is first)
            if is_left:
                self.send()

    async def _send(self, place: Place, until: Held | None) -> None:
        guard, is_first = self._membership.shared.guard, True
        try:
            while True:
                with guard:
                    batch = self._next_batch(until, is_first=is_first)
                    if not batch:
                        self._release()
                        return
                is_first = False
                await self._acknowledge(batch)
        except Exception as error:
            self._membership.shared.fail(error)
            raise
        finally:
            with guard:
                if self._sender() is place:
                    self._release()

    def _release(self) -> None:
        self._sender = nobody
        self._membership.settled.wake()
        if not self.is_idle:
            self.tell()

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
        self._look_how_late()
        return self._sent

    def _look_how_late(self) -> None:
        if len(self._waiting) >= MOST:
            self.stops_at = 0.0
        else:
            self.stops_at = self._sent_at + LATE_SECONDS if self._sent else inf

    async def _acknowledge(self, batch: list[Held]) -> None:
        failure = None
        # The order in which they were begun is nearly always that of the stream.
        batch.sort(key=_started_at)
        try:
            settlement = Settlement(batch, Attempt.FINAL, self._ack, "acknowledged")
            await self._settler.carry_out(settlement)
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
        self._look_how_late()
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
            lost_error(lost, lost[0].outcome),
            ", ".join(held.id for held in lost[:10]),
            ", ..." if len(lost) > 10 else "",
        )
