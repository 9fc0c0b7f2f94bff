# Generated from _async/message.py by build_hooks/generate_sync.py. Do not edit.
"""StepRedisMessage: a message that a consumer holds, and what can be done with it."""

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from step_redis import script_calls
from step_redis._backend import threads
from step_redis.arguments import check_name, shown
from step_redis.codec import Decoded
from step_redis.commands import entry_id
from step_redis.dead_letters import DELIVERED_FIELDS, dead_letter_fields, original_id
from step_redis.errors import ConfigurationError, LeaseLost, StepRedisError
from step_redis.failures import Subject, told
from step_redis.keys import same_slot
from step_redis.lease import Attempt, Held
from step_redis.policy import RetryPolicy
from step_redis.settlement import BuildCall, Settlement

from .membership import Membership


class StepRedisMessage:
    """A message that a `StepRedisConsumer` holds, until it is settled or its lease is lost.

    It is settled by one of `ack`, `nack`, `reject` and `forward`. Settling it twice, or after the
    lease was lost, raises `LeaseLost` and changes nothing. A settlement that was begun is carried
    out also if its caller is cancelled, and over reconnects, as long as the lease lives.

    Attributes:
        stream: The stream it was published to.
        group: The group it was delivered to.
        id: The entry's id, as in ``"1700000000000-0"``. A message that was redriven has the id that
            it was first published with.
        delivery_count: How many times it was delivered within the group, this time included;
            after redriving it begins at 1 again.
    """

    def __init__(
        self, membership: Membership, held: Held, dead: str, time: threads.HandlingTime
    ) -> None:
        self._membership = membership
        self._held = held
        self._dead = dead
        self._time = time
        self.stream = membership.origin_stream
        self.group = membership.origin_group
        self.id = held.delivery.id
        if membership.redrives:
            self.id = original_id(held.delivery.fields) or self.id
        self.delivery_count = held.delivery.count

    def __repr__(self) -> str:
        return (
            f"StepRedisMessage(id={self.id!r}, stream={self.stream!r}, group={self.group!r},"
            f" delivery_count={self.delivery_count})"
        )

    @property
    def data(self) -> dict[Any, Any]:
        """The message that was published; the raw fields, as bytes, if ``error`` is set."""
        return self._decoded.data

    @property
    def headers(self) -> dict[str, str]:
        """The headers it was published with; a redriven message has those of its dead letter."""
        return self._decoded.headers

    @property
    def error(self) -> str | None:
        """None, or why the entry cannot be decoded."""
        return self._decoded.error

    @property
    def published_at(self) -> dt.datetime | None:
        """When it was published, by the server's clock; None if its id is no time."""
        milliseconds, _ = entry_id(self.id)
        try:
            return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
        except (OverflowError, ValueError, OSError):
            return None

    @property
    def is_settled(self) -> bool:
        """Whether it was settled, is being so, or cannot be any more since its lease was lost."""
        return self._held.outcome is not None or self._held.settling

    @cached_property
    def _decoded(self) -> Decoded:
        return self._membership.shared.codec.decode(self._held.delivery.fields)

    def ack(self) -> None:
        """Acknowledge it: the group is done with it. Returns when the server has confirmed.

        Raises:
            LeaseLost: It was settled before, or is not this consumer's any more.
            StepRedisError: The server refused; it is held as before.
        """
        self._settle("ack", Attempt.FINAL, self._ack_call)
        self._membership.shared.counters.acknowledged += 1

    def nack(self, delay_seconds: float | None = None) -> None:
        """Give it back as failed, to be delivered again to any consumer of the group.

        After the last delivery that the retry policy allows, it goes to the dead-letter stream.

        Args:
            delay_seconds: When it is to be delivered again; None leaves it to the retry policy.

        Raises:
            LeaseLost: It was settled before, or is not this consumer's any more.
            StepRedisError: The server refused; it is held as before.
        """
        if delay_seconds is not None and (
            type(delay_seconds) not in (int, float) or not 0 <= delay_seconds < 1e9
        ):
            raise ConfigurationError(
                f"delay_seconds must be a number of at least 0, or None to leave it to the retry"
                f" policy; got {shown(delay_seconds)}"
            )
        planned = self._retry.delay_after(self._failures)
        if planned is None:
            self._give_up("nack", "the last delivery was given back")
        else:
            self._park(planned if delay_seconds is None else delay_seconds)

    def extend(self) -> None:
        """Start the time anew that the handler may take (``handler_timeout_seconds``).

        The lease needs no extending: it is renewed as long as the process lives.

        Raises:
            LeaseLost: The message is not this consumer's any more.
        """
        if self._held.outcome is not None:
            with told(self._membership.shared.logger, self._subject("extend")):
                raise LeaseLost("the message was settled, or is not this consumer's any more")
        self._time.extend()

    def reject(self, reason: str = "") -> None:
        """Move it to the dead-letter stream now, and acknowledge it, as one.

        Args:
            reason: Why, for whoever looks at the dead letter.

        Raises:
            LeaseLost: It was settled before, or is not this consumer's any more.
            StepRedisError: The server refused; it is held as before.
        """
        if not isinstance(reason, str):
            raise ConfigurationError(f"reason must be a str; got {shown(reason)}")
        self._give_up("reject", reason)

    def forward(
        self,
        stream_name: str,
        message: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> str | None:
        """Publish a message to another stream and acknowledge this one, as one.

        Args:
            stream_name: The other stream; in a Cluster it must lie in the same slot, so names
                share a hash tag, as ``{orders}.paid`` does with ``orders``.
            message: As for ``publish_message``.
            headers: As for ``publish_message``.

        Returns:
            The id of the entry; None if it was written and the reply that said so was lost.

        Raises:
            ConfigurationError: The streams do not lie in the same slot.
            EncodeError: The message cannot be stored.
            NotAStreamError: The other key holds something else; this one is held as before.
            LeaseLost: It was settled before, or is not this consumer's any more.
            StepRedisError: The server refused; it is held as before.
        """
        with told(self._membership.shared.logger, self._subject("forward")):
            check_name("stream_name", stream_name)
            if not same_slot(self._membership.stream, stream_name):
                raise ConfigurationError(
                    f"stream_name {stream_name!r} does not lie in the Cluster slot of"
                    f" {self._membership.stream!r}, so that publishing and acknowledging cannot be"
                    " one step: give both the same hash tag"
                )
            fields = self._membership.shared.codec.encode(message, headers)
        written = self._copy("forward", stream_name, fields)
        self._membership.shared.counters.forwarded += 1
        return written

    def fail(self, error: BaseException) -> bool:
        """Do what the retry policy says of a message whose handling failed; not part of the API.

        Returns:
            Whether it is retried; if not, it went to the dead-letter stream.
        """
        delay = self._retry.delay_after(self._failures, error)
        if delay is None:
            return not self.bury(type(error).__qualname__, str(error))
        self._park(delay)
        return True

    def bury(self, kind: str, text: str) -> bool:
        """Move it to the dead-letter stream; if that cannot be, retry it; not part of the API."""
        try:
            self._give_up(kind, text)
        except LeaseLost:
            raise
        except StepRedisError:
            # It was logged. The message is kept: nothing is acknowledged that was not written.
            self._park(self._retry.longest_wait(self._failures))
            return False
        return True

    def put_off(self, seconds: float) -> None:
        """Give it back without a delivery that counts; not part of the API."""
        self._park(seconds, "unstarted")

    @property
    def lost_too_often(self) -> bool:
        """Whether it may be what kills consumers; not part of the API."""
        return self._retry.gives_up_on_lost(self._held.delivery.lost)

    @property
    def _retry(self) -> RetryPolicy:
        return self._membership.shared.options.retry

    @property
    def _failures(self) -> int:
        """How many of its deliveries failed, this one included."""
        return max(1, self._held.delivery.count - self._held.delivery.lost)

    def _subject(self, action: str) -> Subject:
        return Subject(action, self.stream, self.group, self._membership.member.base, self.id)

    def _ack_call(self, name: str, ids: list[str]) -> script_calls.ScriptCall:
        membership = self._membership
        return script_calls.ack(
            membership.keys, membership.group, name, ids, delete=membership.redrives
        )

    def _park(self, seconds: float, kind: script_calls.ParkKind = "failed") -> None:
        membership, delay_ms = self._membership, int(1000 * seconds)
        self._settle(
            "nack",
            Attempt.PARK,
            lambda name, ids: script_calls.park(
                membership.keys, membership.group, name, ids, delay_ms=delay_ms, kind=kind
            ),
        )
        if kind == "failed":
            membership.shared.counters.retried += 1

    def _give_up(self, kind: str, text: str) -> None:
        fields = dead_letter_fields(
            self._held.delivery.fields,
            stream=self.stream,
            message_id=self.id,
            group=self.group,
            consumer=self._membership.member.base,
            deliveries=self.delivery_count,
            error_type=kind,
            error_text=text,
        )
        self._copy("dead-letter", self._dead, fields, DELIVERED_FIELDS)
        self._membership.shared.counters.dead_lettered += 1

    def _copy(
        self,
        action: str,
        target: str,
        fields: Sequence[bytes],
        delivery_fields: tuple[str, str] = ("", ""),
    ) -> str | None:
        membership, message_id = self._membership, self._held.delivery.id
        return self._settle(
            action,
            Attempt.FINAL,
            lambda name, _: script_calls.copy(
                *(membership.keys, membership.group, name, message_id),
                target=target,
                fields=fields,
                delivery_fields=delivery_fields,
                delete=membership.redrives,
            ),
            is_copy=True,
        )

    def _settle(
        self, action: str, attempt: Attempt, call: BuildCall, *, is_copy: bool = False
    ) -> str | None:
        with told(self._membership.shared.logger, self._subject(action)):
            settlement = Settlement([self._held], attempt, call, is_copy)
            self._membership.settle(settlement)
            return settlement.written
