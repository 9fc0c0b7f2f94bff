"""What users decide about failures and consumers: small values and what follows from them."""

from collections.abc import Sequence
from random import uniform
from typing import Any, Literal, TypeAlias

import attrs

from step_redis.arguments import check_name, check_number, check_whole, shown
from step_redis.errors import ConfigurationError

__all__ = ["ConsumerOptions", "Exponential", "GroupLostPolicy", "RetryPolicy"]

GroupLostPolicy: TypeAlias = Literal["replay", "resume", "latest", "fail"]
_GROUP_LOST = ("replay", "resume", "latest", "fail")


@attrs.frozen
class Exponential:
    """Delays that grow by a factor with each failure, up to a limit.

    Args:
        first_seconds: The delay after the first failure.
        factor: By how much each further one is longer.
        limit_seconds: The longest delay, but for the jitter.
        jitter: By how much of itself a delay varies at random, so that messages that failed
            together do not come back together: 0.1 is 10 % more or less.
    """

    first_seconds: float = 1
    factor: float = 2
    limit_seconds: float = 300
    jitter: float = 0.1

    def __attrs_post_init__(self) -> None:
        check_number("first_seconds", self.first_seconds, 0)
        check_number("factor", self.factor, 1)
        check_number("limit_seconds", self.limit_seconds, 0)
        check_number("jitter", self.jitter, 0)
        if self.jitter > 1:
            raise ConfigurationError(f"jitter must be between 0 and 1; got {self.jitter!r}")

    def seconds(self, failures: int) -> float:
        """Return the delay after so many failures, jittered."""
        try:
            delay = self.first_seconds * float(self.factor) ** (failures - 1)
        except OverflowError:
            delay = self.limit_seconds if self.first_seconds else 0
        delay = min(delay, self.limit_seconds)
        return delay * uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311 - no secret


Delays: TypeAlias = Exponential | float | Sequence[float]


def _frozen_delays(value: Any) -> Any:
    is_several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return tuple(value) if is_several else value


def _frozen_kinds(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | set | frozenset) else value


@attrs.frozen
class RetryPolicy:
    """What becomes of a message whose handling failed.

    Args:
        max_deliveries: After so many failed deliveries a message goes to the dead-letter stream;
            None retries for ever.
        delays: Seconds until a failed message is delivered again: an `Exponential`, one number,
            or a sequence of which the last counts for all further ones.
        non_retryable: Classes of errors that no retry mends: such a message goes to the
            dead-letter stream at once.
        max_lost_deliveries: After so many deliveries that ended with their consumer, by a crash
            or a kill, a message is not handled again and goes to the dead-letter stream: it may
            be what kills them. They do not count as failed. None: never.
    """

    max_deliveries: int | None = 5
    delays: Delays = attrs.field(factory=Exponential, converter=_frozen_delays)
    non_retryable: tuple[type[BaseException], ...] = attrs.field(
        default=(), converter=_frozen_kinds
    )
    max_lost_deliveries: int | None = 10

    def __attrs_post_init__(self) -> None:
        check_whole("max_deliveries", self.max_deliveries, 1, none="to retry for ever")
        check_whole("max_lost_deliveries", self.max_lost_deliveries, 1, none="for no limit")
        if isinstance(self.delays, tuple):
            if not self.delays:
                raise ConfigurationError("delays must not be empty: 0 retries at once")
            for delay in self.delays:
                check_number("delays", delay, 0)
        elif not isinstance(self.delays, Exponential):
            check_number("delays", self.delays, 0)
        kinds: Any = self.non_retryable
        for kind in kinds if isinstance(kinds, tuple) else [kinds]:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise ConfigurationError(
                    f"non_retryable must hold classes of exceptions only; it holds {shown(kind)}"
                )
        if not isinstance(kinds, tuple):
            raise ConfigurationError(
                f"non_retryable must be a tuple of classes; got {kinds.__name__}: write"
                f" ({kinds.__name__},)"
            )

    def delay_after(self, failures: int, error: BaseException | None = None) -> float | None:
        """Return the seconds until a message is retried after so many failures.

        None: it is not retried, because of the error or because it was the last delivery.
        """
        if self.max_deliveries is not None and failures >= self.max_deliveries:
            return None
        if error is not None and isinstance(error, self.non_retryable):
            return None
        return self.longest_wait(failures)

    def longest_wait(self, failures: int) -> float:
        """Return the delay after so many failures, also where no retry is left."""
        match self.delays:
            case Exponential() as delays:
                return delays.seconds(failures)
            case int() | float() as seconds:
                return seconds
            case several:
                return several[min(failures, len(several)) - 1]

    def gives_up_on_lost(self, lost_deliveries: int) -> bool:
        """Whether a message was lost with its consumer too often to be handled again."""
        return self.max_lost_deliveries is not None and lost_deliveries >= self.max_lost_deliveries


@attrs.frozen(kw_only=True)
class ConsumerOptions:
    """How a `StepRedisConsumer` works; every value has a default, and is checked at once.

    Args:
        name: The first part of the consumer's name on the server; what follows is unique. None is
            made of host and process.
        concurrency: How many messages are handled at once. With 1 they are handled in the order
            of the stream.
        prefetch: How many messages are held ready, at most, beside those being handled; fewer
            while handling is slow, so that other consumers get their part. They are shared equally
            between several streams.
        prefetch_bytes: How many bytes of messages are held ready; the last read may exceed it.
        lease_seconds: How long after its process died a consumer's messages are taken over by
            others. Handling may take longer: the lease is renewed as long as the process lives.
        handler_timeout_seconds: How long a message may be handled before that counts as failed;
            `extend` on the message starts the time anew. In asyncio the handler is cancelled; a
            thread cannot be, so it is left behind and its place is taken by a new one. None: no
            limit.
        retry: What becomes of failed messages.
        dead_letter_stream: The stream for messages that are given up, in the same Cluster slot;
            None is ``{orders}.dead`` for ``orders``.
        on_group_lost: Where to go on when the group is not there, at the start or because it or
            its stream was deleted: ``"replay"`` from the start of what is there, ``"resume"`` from
            the lowest message that was not settled (from the start, if that is not known),
            ``"latest"`` with what comes later, ``"fail"`` not at all: `GroupNotFoundError`.
        grace_seconds: How long handlers may go on when the consumer is stopped. Choose it shorter
            than whoever stops the process waits before it kills it. Then handlers are cancelled in
            asyncio; a thread goes on until the process ends. Their messages are handed back.
        outage_limit_seconds: How long a server that cannot be reached, is loading, read-only or
            out of memory is waited for before the consumer fails; None: for ever.
        foreign_idle_seconds: After how long unacknowledged messages are taken from consumers of
            the group that are none of ours and so have no lease; None leaves them alone.
        stuck_seconds: After how long without progress, though there is something to do,
            `StepRedisConsumer.health` says that it is stuck. Choose it longer than the longest
            handling; if handler_timeout_seconds is longer, that counts.
    """

    name: str | None = None
    concurrency: int = 1
    prefetch: int = 400
    prefetch_bytes: int = 16 * 1024 * 1024
    lease_seconds: float = 30
    handler_timeout_seconds: float | None = None
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    dead_letter_stream: str | None = None
    on_group_lost: GroupLostPolicy = "replay"
    grace_seconds: float = 30
    outage_limit_seconds: float | None = None
    foreign_idle_seconds: float | None = None
    stuck_seconds: float = 300

    def __attrs_post_init__(self) -> None:
        if self.name is not None:
            check_name("name", self.name)
        if self.dead_letter_stream is not None:
            check_name("dead_letter_stream", self.dead_letter_stream)
        check_whole("concurrency", self.concurrency, 1)
        check_whole("prefetch", self.prefetch, 1)
        check_whole("prefetch_bytes", self.prefetch_bytes, 1)
        check_number("lease_seconds", self.lease_seconds, 1)
        check_number("grace_seconds", self.grace_seconds, 0)
        check_number("stuck_seconds", self.stuck_seconds, 0, above=True)
        for name in ("handler_timeout_seconds", "outage_limit_seconds", "foreign_idle_seconds"):
            check_number(name, getattr(self, name), 0, above=True, none="for no limit")
        if not isinstance(self.retry, RetryPolicy):
            raise ConfigurationError(f"retry must be a RetryPolicy; got {shown(self.retry)}")
        if self.on_group_lost not in _GROUP_LOST:
            raise ConfigurationError(
                f"on_group_lost must be one of {', '.join(map(repr, _GROUP_LOST))};"
                f" got {shown(self.on_group_lost)}"
            )
