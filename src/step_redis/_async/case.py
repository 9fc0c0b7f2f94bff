# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""One message that a consumer holds: how it is acknowledged, retried, given up."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from step_redis import script_calls
from step_redis._backend import aio
from step_redis.codec import RESERVED_PREFIX
from step_redis.dead_letters import (
    DELIVERED_FIELDS,
    dead_letter_fields,
    original_id,
    text_of,
)
from step_redis.deadline import lease_now, now
from step_redis.errors import EncodeError, LeaseLost, StepRedisError
from step_redis.failures import Subject, told
from step_redis.lease import Attempt, Held
from step_redis.place import Place
from step_redis.policy import RetryPolicy
from step_redis.scripts import MOST_VALUES
from step_redis.settlement import BuildCall, Settlement

from .branch import Branch
from .keeper import POLL_SECONDS
from .membership import Membership

_OURS = RESERVED_PREFIX.encode()

_KNOWN_NAMES = 1000
_KNOWN_LENGTH = 64
"""So many names of fields, of so many bytes at most, are remembered."""

_foreign_names: set[bytes] = set()
"""Names of fields that are not ours: messages repeat a few."""


class Case:
    """A held message and what can become of it, for consumers and for the messages users hold.

    One is made for each message, so all that is seldom asked for is found when it is.

    Args:
        branch: Through which it came.
        held: The message.
        worker: Who handles it, if it is one of ours; else whoever iterates does.
    """

    __slots__ = ("abandoned", "branch", "held", "is_odd", "is_second", "time", "worker")

    def __init__(self, branch: Branch, held: Held, worker: Place | None) -> None:
        self.branch = branch
        self.held = held
        self.worker = worker
        self.abandoned = False
        """Whether it took too long and somebody else goes on in its place."""
        self.is_second = False
        """Whether an earlier delivery of it is still being handled here."""
        self.is_odd = False
        """Whether it may be that it is not to be handled now."""
        self.time: aio.HandlingTime | None = None
        """How long it may be handled, if that is limited."""

    @property
    def membership(self) -> Membership:
        """Through which it came."""
        return self.branch.membership

    @property
    def stream(self) -> str:
        """The stream it was published to."""
        return self.membership.origin_stream

    @property
    def group(self) -> str:
        """The group it was delivered to."""
        return self.membership.origin_group

    @property
    def id(self) -> str:
        """The id it was first published with."""
        held = self.held
        if self.membership.redrives:
            return original_id(held.fields) or held.id
        return held.id

    @property
    def seconds(self) -> float:
        """How long it has been handled."""
        if self.time is not None:
            return now() - self.time.started_at
        return lease_now() - (self.held.started_at or 0)

    def extend(self) -> None:
        """Start the time of its handling anew."""
        self.held.started_at = lease_now()
        if self.time is not None:
            self.time.extend()

    @property
    def is_open(self) -> bool:
        """Whether its handler may be at it, and not in the midst of settling it."""
        return not self.held.settling and (self.worker is not None or self.held.outcome is None)

    @property
    def may_be_unreadable(self) -> bool:
        """Whether it may be that the entry cannot be decoded: others need not be, to be sure."""
        names = self.held.fields[::2]
        if _foreign_names.issuperset(names):
            return False
        if _OURS in b" ".join(names):
            return True
        is_room = len(_foreign_names) + len(names) <= _KNOWN_NAMES
        if is_room and max(map(len, names)) <= _KNOWN_LENGTH:
            _foreign_names.update(names)
        return False

    @property
    def _retry(self) -> RetryPolicy:
        return self.membership.shared.options.retry

    @property
    def is_settled(self) -> bool:
        """Whether it was settled, is being so, or cannot be any more since its lease was lost."""
        return self.held.outcome is not None or self.held.settling

    @property
    def lost_too_often(self) -> bool:
        """Whether it may be what kills consumers."""
        return self._retry.gives_up_on_lost(self.held.lost)

    @property
    def failures(self) -> int:
        """How many of its deliveries failed, this one included."""
        return self.held.failures

    def told(self, action: str) -> AbstractContextManager[None]:
        """Log a failure of what is done with it, once."""
        consumer = self.membership.member.base
        subject = Subject(action, self.stream, self.group, consumer, self.id)
        return told(self.membership.shared.logger, subject)

    async def ack(self) -> None:
        """Acknowledge it; return when the server has confirmed."""
        with self.told("ack"):
            await self.branch.gathering.acknowledge(self.held)

    async def nack(self, delay_seconds: float | None) -> None:
        """Retry it as failed, after a delay or as the policy says; give it up after the last."""
        planned = self._retry.delay_after(self.failures)
        if planned is None:
            await self.give_up("nack", "the last delivery was given back")
        else:
            await self._park(planned if delay_seconds is None else delay_seconds)

    async def fail(self, error: BaseException) -> bool:
        """Do what the policy says of a message whose handling failed; return if it is retried."""
        delay = self._retry.delay_after(self.failures, error)
        if delay is None:
            return not await self.bury(type(error).__qualname__, text_of(error))
        await self._park(delay)
        return True

    async def bury(self, kind: str, text: str) -> bool:
        """Give it up; if that cannot be, retry it. Return whether it was given up."""
        try:
            await self.give_up(kind, text)
        except LeaseLost:
            raise
        except StepRedisError:
            # It was logged. Nothing is acknowledged that was not written.
            await self._park(self._retry.longest_wait(self.failures))
            return False
        return True

    async def put_off(self, seconds: float) -> None:
        """Give it back without a delivery that counts."""
        await self._park(seconds, "unstarted", "handed_back")

    async def give_up(self, kind: str, text: str) -> None:
        """Move it to the dead-letter stream."""
        fields = dead_letter_fields(
            self.held.fields,
            stream=self.stream,
            message_id=self.id,
            group=self.group,
            consumer=self.membership.member.base,
            deliveries=self.held.count,
            error_type=kind,
            error_text=text,
        )
        await self.copy("dead-letter", self.branch.dead, fields, "dead_lettered", DELIVERED_FIELDS)

    async def copy(
        self,
        action: str,
        target: str,
        fields: Sequence[bytes],
        counter: str,
        delivery_fields: tuple[str, str] = ("", ""),
    ) -> str | None:
        """Write an entry to another stream and acknowledge it; return the entry's id, if known."""
        membership = self.membership
        if len(fields) > MOST_VALUES:
            with self.told(action):
                raise EncodeError(
                    f"an entry of {len(fields) // 2} fields cannot be moved: scripts write"
                    f" {MOST_VALUES // 2} at most"
                )
        return await self._settle(
            action,
            Attempt.FINAL,
            lambda name, ids: script_calls.copy(
                *(membership.keys, membership.group, name, ids[0]),
                target=target,
                fields=fields,
                delivery_fields=delivery_fields,
                delete=membership.redrives,
            ),
            counter,
            is_copy=True,
        )

    async def _park(
        self, seconds: float, kind: script_calls.ParkKind = "failed", counter: str = "retried"
    ) -> None:
        membership, delay_ms = self.membership, int(1000 * seconds)
        await self._settle(
            "nack",
            Attempt.PARK,
            lambda name, ids: script_calls.park(
                membership.keys, membership.group, name, ids, delay_ms=delay_ms, kind=kind
            ),
            counter,
            is_due_soon=seconds < POLL_SECONDS,
        )

    async def _settle(
        self,
        action: str,
        attempt: Attempt,
        call: BuildCall,
        counter: str,
        *,
        is_copy: bool = False,
        is_due_soon: bool = False,
    ) -> str | None:
        with self.told(action):
            settlement = Settlement([self.held], attempt, call, counter, is_copy, is_due_soon)
            await self.branch.settler.settle(settlement)
            return settlement.written
