# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""StepRedisMessage: a message that a consumer holds, and what can be done with it."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

from step_redis.arguments import check_name, shown
from step_redis.codec import Decoded
from step_redis.commands import entry_id
from step_redis.dead_letters import provenance, without_provenance
from step_redis.errors import ConfigurationError, LeaseLost
from step_redis.keys import same_slot

from .case import Case


class StepRedisMessage:
    """A message that a `StepRedisConsumer` holds, until it is settled or its lease is lost.

    It is settled by one of `ack`, `nack`, `reject` and `forward`. Settling it twice, or after the
    lease was lost, raises `LeaseLost` and changes nothing. A settlement that was begun is carried
    out also if its caller is cancelled, and over reconnects, as long as the lease lives.
    """

    __slots__ = ("__weakref__", "_case", "_read")

    def __init__(self, case: Case) -> None:
        self._case = case
        self._read: Decoded | None = None

    def __repr__(self) -> str:
        return (
            f"StepRedisMessage(id={self.id!r}, stream={self.stream!r}, group={self.group!r},"
            f" delivery_count={self.delivery_count})"
        )

    @property
    def stream(self) -> str:
        """The stream it was published to."""
        return self._case.stream

    @property
    def group(self) -> str:
        """The group it was delivered to."""
        return self._case.group

    @property
    def id(self) -> str:
        """The entry's id, as in ``"1700000000000-0"``.

        A message that was redriven has the id that it was first published with.
        """
        return self._case.id

    @property
    def delivery_count(self) -> int:
        """How many times it was delivered within the group, this time included.

        Those times count too that do not count as failed since the consumer died or was stopped.
        After redriving it begins at 1 again.
        """
        return self._case.held.count

    @property
    def data(self) -> dict[Any, Any]:
        """The message that was published; the raw fields, as bytes, if ``error`` is set."""
        return self._decoded.data

    @property
    def headers(self) -> dict[str, str]:
        """The headers it was published with."""
        return without_provenance(self._decoded.headers)

    @property
    def provenance(self) -> dict[str, str]:
        """What its dead letter said, if it was redriven; empty otherwise.

        ``stream``, ``id``, ``group``, ``consumer``, ``deliveries``, ``error-type``, ``error``,
        ``first-delivered`` and ``last-delivered`` (ms since 1970 by the server's clock).
        """
        return provenance(self._decoded.headers)

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
    def _decoded(self) -> Decoded:
        if self._read is None:
            codec = self._case.membership.shared.codec
            self._read = codec.decode(self._case.held.fields)
        return self._read

    async def ack(self) -> None:
        """Acknowledge it: the group is done with it. Returns when the server has confirmed.

        Raises:
            LeaseLost: It was settled before, or is not this consumer's any more.
            StepRedisError: The server refused; it is held as before.
        """
        await self._case.ack()

    async def nack(self, delay_seconds: float | None = None) -> None:
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
        await self._case.nack(delay_seconds)

    async def extend(self) -> None:
        """Start the time anew that the handler may take (``handler_timeout_seconds``).

        The lease needs no extending: it is renewed as long as the process lives.

        Raises:
            LeaseLost: The message is not this consumer's any more.
        """
        if self._case.held.outcome is not None:
            with self._case.told("extend"):
                raise LeaseLost("the message was settled, or is not this consumer's any more")
        self._case.extend()

    async def reject(self, reason: str = "") -> None:
        """Move it to the dead-letter stream now, and acknowledge it, as one.

        Args:
            reason: Why, for whoever looks at the dead letter.

        Raises:
            LeaseLost: It was settled before, or is not this consumer's any more.
            StepRedisError: The server refused; it is held as before.
        """
        if not isinstance(reason, str):
            raise ConfigurationError(f"reason must be a str; got {shown(reason)}")
        await self._case.give_up("reject", reason)

    async def forward(
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
        with self._case.told("forward"):
            check_name("stream_name", stream_name)
            if not same_slot(self._case.membership.stream, stream_name):
                raise ConfigurationError(
                    f"stream_name {stream_name!r} does not lie in the Cluster slot of"
                    f" {self._case.membership.stream!r}, so that publishing and acknowledging"
                    " cannot be one step: give both the same hash tag"
                )
            fields = self._case.membership.shared.codec.encode(message, headers)
        return await self._case.copy("forward", stream_name, fields, "forwarded")
