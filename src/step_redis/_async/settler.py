# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""Settlements of one membership, carried out once over lost replies and outages."""

from collections.abc import Iterable
from typing import Any

from step_redis import script_calls
from step_redis._backend import aio
from step_redis.backoff import delays
from step_redis.deadline import lease_now, now
from step_redis.errors import LeaseLost, NotAStreamError, StepRedisError
from step_redis.lease import Attempt, Held, Outcome
from step_redis.outage import passes_by_itself
from step_redis.settlement import Settlement

from .membership import Membership


class Settler:
    """Settles the messages that a membership holds."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def settle(self, settlement: Settlement) -> None:
        """Carry out a settlement, once, over as many lost replies and outages as it takes.

        A caller that is interrupted leaves it to be carried out all the same.

        Raises:
            LeaseLost: A message was settled before or is not this consumer's any more.
            StepRedisError: It cannot be carried out; the messages are held as before.
        """
        with self._membership.shared.guard:
            check_open(settlement.held)
            for held in settlement.held:
                held.settling = True
        job = aio.start(self._settle, settlement)
        await job.finished(None)
        job.result()
        if settlement.outcome is not Outcome.SETTLED:
            raise lost_error(settlement.held, settlement.outcome)

    async def _settle(self, settlement: Settlement) -> None:
        try:
            await self.carry_out(settlement)
        finally:
            with self._membership.shared.guard:
                for held in settlement.held:
                    held.settling = False
                if settlement.outcome is Outcome.SETTLED:
                    counters = self._membership.shared.counters
                    counters.add(settlement.counter, len(settlement.held))

    async def carry_out(self, settlement: Settlement) -> None:
        """Send a settlement until it is known what became of each message."""
        pauses = delays()
        while settlement.open:
            name, tried = await self._begin(settlement)
            if tried and not await self._try(settlement, name, tried):
                await aio.sleep(next(pauses))

    async def _begin(self, settlement: Settlement) -> tuple[str, list[Held]]:
        """Wait for a name; return it and the messages that are held under it, to be settled."""
        membership = self._membership
        with membership.shared.guard:
            while (name := membership.member.name) is None and settlement.open:
                # Whatever keeps the keeper from finding one, a lease ends.
                left = membership.member.seconds_left(lease_now())
                if left <= 0:
                    membership.lose("it could not be renewed in time")
                else:
                    await membership.changed.wait(left)
            if name is not None and not membership.member.accepts(name, lease_now()):
                membership.lose("it could not be renewed in time")
            tried = settlement.open
            for held in tried:
                held.attempt = settlement.attempt
            return name or "", tried

    async def _try(self, settlement: Settlement, name: str, tried: list[Held]) -> bool:
        """Send a settlement; return False if it has to be sent again in a while."""
        ids = [held.id for held in tried]
        try:
            reply = await self._call(settlement.call(name, ids))
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

    async def _call(self, call: script_calls.ScriptCall) -> list[Any]:
        reply = await self._membership.shared.connections.run(
            call, effect="the message may have been settled"
        )
        if reply[0] == b"TYPE":
            raise NotAStreamError("the key to write to holds something else than a stream")
        return reply

    def _take_note(
        self, settlement: Settlement, tried: list[Held], not_owned: frozenset[str]
    ) -> None:
        member, settled = self._membership.member, tried
        if not_owned:
            settled = [held for held in tried if held.id not in not_owned]
            for held in tried:
                if held.id in not_owned:
                    member.was_taken(held)
        member.settled_all(settled)
        self._membership.shared.last_settled = now()
        if settlement.is_due_soon and self._membership.is_open:
            # It may be due before the next beat.
            self._membership.ring()

    async def hand_back(self) -> None:
        """Give what is ready back to the group, which delivers it at once, as if it never had."""
        with self._membership.shared.guard:
            held = self._membership.take_all()
        if held:
            try:
                await self.settle(
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


def check_open(several: Iterable[Held]) -> None:
    """Refuse what was settled, is being settled, or cannot be any more."""
    for held in several:
        if held.outcome is not None or held.settling:
            raise lost_error([held], held.outcome)


def lost_error(several: Iterable[Held], outcome: Outcome | None) -> LeaseLost:
    """Return the failure of settling messages."""
    is_unknown = outcome is Outcome.UNKNOWN
    if any(held.settling or held.outcome is Outcome.SETTLED for held in several):
        text = "the message was settled already, or given up since its handling took too long"
    elif is_unknown:
        text = "the lease ended while a reply was lost: the message may have been settled, or not"
    else:
        text = "the message is not this consumer's any more; it is delivered again"
    return LeaseLost(text, outcome_unknown=is_unknown)
