# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""StepRedisConsumer: messages of a group handled, each until it is settled."""

import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Literal, Self

import attrs

from step_redis._backend import aio
from step_redis.arguments import HandlerKindError, check_name, check_type
from step_redis.codec import Codec
from step_redis.deadline import Deadline, lease_now, now
from step_redis.errors import (
    ConfigurationError,
    HandlerTimeoutError,
    LeaseLost,
    PoolClosedError,
    StepRedisError,
)
from step_redis.failures import Subject, told
from step_redis.health import ConsumerHealth, StreamHealth, health_commands, is_stuck, stream_health
from step_redis.keys import dead_letter_stream, redrive_group, same_slot
from step_redis.policy import ConsumerOptions

from .membership import Membership, Shared
from .message import StepRedisMessage
from .pool import StepRedisPool, connections_of

_logger = logging.getLogger("step_redis")

_LEAVE_SECONDS = 5.0
"""How long leaving the group may be tried."""

_CANCEL_SECONDS = 1.0
"""How long handlers that are ended may take for it."""

_LANE_SHARE = 10
"""Redriven messages may take this part of what is held ready."""

_PUT_OFF_SECONDS = 1.0

_LOOK_SECONDS = 0.5


@attrs.define(eq=False)
class _Handling:
    """A message that a worker is handling."""

    message: StepRedisMessage
    time: aio.HandlingTime
    key: tuple[str, str]
    by_worker: bool
    abandoned: bool = False
    """Whether it took too long and somebody else goes on in its place."""


class StepRedisConsumer:
    """Handles the messages of a group so that none is lost, whatever fails.

    A message is this consumer's as long as its process lives, however long the handler takes. If
    the process dies, others take its messages over when its lease ends; if it lost its lease, it
    settles nothing and joins anew. Failed messages are retried with delays, then moved to a
    dead-letter stream.

    Used as a context manager, it hands back what it holds when it is left. Call `run`, or iterate
    over it and settle the messages yourself. A consumer that was stopped stays so: make another.

    Args:
        pool: A `StepRedisPool`, or a redis-py connection pool of the same flavour.
        streams: The stream, or several; each is read equally.
        group: The consumer group, the same on all streams. If it is not there, it is made as
            ``on_group_lost`` says.
        options: How it works; None is `ConsumerOptions` with its defaults.
        logger: Where to log; None is the logger ``step_redis``.
        default: As for `StepRedisStream`, for what is forwarded.
        foreign: As for `StepRedisStream`, for entries that other programs wrote.

    Raises:
        ConfigurationError: A name or an option cannot work.
    """

    def __init__(
        self,
        pool: StepRedisPool | aio.RedisPool,
        streams: str | Iterable[str],
        group: str,
        *,
        options: ConsumerOptions | None = None,
        logger: logging.Logger | None = None,
        default: Callable[[Any], Any] | None = None,
        foreign: Literal["str", "bytes"] = "str",
    ) -> None:
        options = options or ConsumerOptions()
        check_type("options", options, ConsumerOptions)
        names = [streams] if isinstance(streams, str) else list(streams)
        if not names or len(set(names)) < len(names):
            raise ConfigurationError("streams must name at least one stream, and none twice")
        for name in names:
            check_name("streams", name)
        check_name("group", group)
        self._streams, self._group, self._options = names, group, options
        self._logger = logger or _logger
        self._connections = connections_of(pool)
        self._owns_readers = not isinstance(pool, StepRedisPool)
        self._dead = {name: _dead_letter_stream(name, options) for name in names}
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}"
        self._guard = aio.Guard()
        self._shared = Shared(
            self._connections,
            options,
            Codec(default=default, foreign=foreign),
            self._logger,
            self._guard,
            aio.Signal(self._guard),
        )
        self._changed = aio.Signal(self._guard)
        self._memberships = [
            membership for name in names for membership in self._memberships_of(name)
        ]
        self._turn = 0
        self._jobs: list[aio.Worker] = []
        self._workers: list[aio.Worker] = []
        self._working = 0
        self._handling: dict[tuple[str, str], _Handling] = {}
        self._state: Literal["new", "running", "ending", "ended"] = "new"
        self._iterations = 0
        self._started_at = now()
        self._stopping = False
        self._hurry = False
        self._failure: BaseException | None = None

    def _memberships_of(self, stream: str) -> Iterable[Membership]:
        share = max(1, self._options.prefetch // len(self._streams))
        yield Membership(self._shared, stream, self._group, self.name, share)
        yield Membership(
            *(self._shared, self._dead[stream], redrive_group(stream, self._group), self.name),
            share=max(1, share // _LANE_SHARE),
            origin=(stream, self._group),
        )

    def __repr__(self) -> str:
        return (
            f"StepRedisConsumer({', '.join(map(repr, self._streams))}, group={self._group!r},"
            f" name={self.name!r})"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def run(self, handle: aio.Handler[StepRedisMessage], *, signals: bool = False) -> None:
        """Handle messages until the consumer is stopped.

        A message is acknowledged when ``handle`` returns, unless it settled the message itself,
        and retried or given up as the retry policy says when it raises. Entries that cannot be
        decoded go to the dead-letter stream without being handled.

        Args:
            handle: Called with each message. It must be able to meet a message twice: if it, or
                its process, ends between its effects and the acknowledgement, it does.
            signals: Whether SIGINT and SIGTERM stop it: the first one as `stop` does, the second
                one without waiting for handlers. Works in the main thread only.

        Raises:
            GroupNotFoundError: The group is not there, and ``on_group_lost="fail"``.
            StepRedisError: Something that does not pass by itself, such as a missing permission,
                or that lasts for longer than ``outage_limit_seconds``. What was held is handed
                back as far as that is possible.
        """
        with told(self._logger, Subject("run", ", ".join(self._streams), self._group, self.name)):
            aio.check_handler(handle)
            with aio.signals_call(self._signalled) if signals else nullcontext():
                grace = 0.0
                try:
                    self._start(handle)
                    for _ in range(self._options.concurrency):
                        self._start_worker(handle)
                    with self._guard:
                        while not self._stopping and self._failure is None:
                            await self._changed.wait(None)
                    grace = self._options.grace_seconds
                finally:
                    await self._end(grace)
            self._raise_failure()

    async def __aiter__(self) -> AsyncIterator[StepRedisMessage]:
        """Yield messages, which the caller settles, until the consumer is stopped.

        When the loop is left, what it was not given yet is handed back; what it was given and did
        not settle is held until the consumer is closed.

        Raises:
            StepRedisError: As for `run`.
        """
        self._start(None)
        try:
            while (handling := await self._next(by_worker=False)) is not None:
                yield handling.message
        finally:
            await self._stop_reading()
        self._raise_failure()

    def stop(self) -> None:
        """Let `run` and iterations end; may be called from handlers, signals and threads.

        Nothing is read any more; what is held and not being handled is handed back at once, and
        other consumers get it within a second; handlers may go on for ``grace_seconds``.
        """
        self._stopping = True
        self._changed.wake_from_anywhere()
        self._shared.arrivals.wake_from_anywhere()

    async def aclose(self) -> None:
        """Stop, and wait until everything is handed back and the consumer has left the group."""
        self.stop()
        await self._end(self._options.grace_seconds)

    async def health(self) -> ConsumerHealth:
        """Return how the consumer and its groups are doing.

        It costs the server a few microseconds, however much is pending, so that a probe may ask
        every second. A server that does not answer is no failure of this call: ``error`` says so.
        """
        streams: list[StreamHealth] = []
        error = None
        for name in self._streams:
            membership = self._memberships[2 * len(streams)]
            commands = health_commands(membership.keys, self._group, self._dead[name])
            try:
                replies = await self._connections.call(*commands)
            except StepRedisError as failure:
                replies, error = [None] * len(commands), str(failure)
            streams.append(stream_health(name, self._group, replies))
        with self._guard:
            at = now()
            shared = self._shared
            ready = sum(len(membership.ready) for membership in self._memberships)
            started = [handling.time.started_at for handling in self._handling.values()]
            seen = (shared.last_read, shared.last_settled, self._started_at)
            idle_seconds = at - max(moment for moment in seen if moment is not None)
            health = ConsumerHealth(
                running=self._state == "running",
                stuck=False,
                error=error,
                seconds_since_read=None if shared.last_read is None else at - shared.last_read,
                seconds_since_settled=(
                    None if shared.last_settled is None else at - shared.last_settled
                ),
                ready=ready,
                handling=len(started),
                longest_handling_seconds=at - min(started, default=at),
                streams=tuple(streams),
                counters=attrs.evolve(shared.counters),
            )
        return attrs.evolve(
            health, stuck=is_stuck(health, idle_seconds, self._options.stuck_seconds)
        )

    # Starting and stopping.

    def _start(self, handle: aio.Handler[StepRedisMessage] | None) -> None:
        """Start to bring messages: to `run` if there is a handler, else to an iteration."""
        with self._guard:
            if self._state in ("ending", "ended"):
                raise PoolClosedError("the consumer was closed: make another one")
            if self._state == "running" and (handle is not None or self._iterations == 0):
                raise ConfigurationError("the consumer is running already")
            self._iterations += handle is None
            for membership in self._memberships:
                membership.open()
            if self._state == "running":
                return
            self._state = "running"
            self._started_at = now()
        for membership in self._memberships:
            self._job("keeper", membership.keep)
            if not membership.redrives:
                self._job("reader", membership.read)
        if self._options.handler_timeout_seconds is not None:
            self._job("watch", self._watch, handle)

    def _job(self, kind: str, function: Callable[..., Any], *args: Any) -> None:
        name = f"step_redis {kind} of {self.name}"
        self._jobs.append(aio.start_worker(name, self._carry_out, function, *args))

    async def _carry_out(self, function: Callable[..., Any], *args: Any) -> None:
        """Let a job's failure be the consumer's."""
        try:
            await function(*args)
        except BaseException as error:  # noqa: BLE001 - run raises it
            if not aio.is_being_cancelled():
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._guard:
            self._failure = self._failure or error
            self._changed.wake()
            self._shared.arrivals.wake()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _signalled(self) -> None:
        self._hurry = self._stopping
        self.stop()

    async def _stop_reading(self) -> None:
        """An iteration was left; after the last one nothing more is brought."""
        with self._guard:
            self._iterations -= 1
            if self._iterations or self._state != "running":
                return
            for membership in self._memberships:
                membership.close()
        for membership in self._memberships:
            await membership.hand_back()

    async def _end(self, grace_seconds: float) -> None:
        """Stop everything in order; whoever else wants to waits for it."""
        with self._guard:
            while self._state == "ending":
                await self._changed.wait(None)
            if self._state != "running":
                self._state = "ended"
                return
            self._state, self._stopping = "ending", True
            for membership in self._memberships:
                membership.close()
            self._shared.arrivals.wake()
        try:
            for membership in self._memberships:
                self._job("hand back", membership.hand_back)
            await self._end_workers(grace_seconds)
            await self._leave()
        finally:
            with self._guard:
                self._state = "ended"
                self._changed.wake()
            if self._owns_readers:
                await self._connections.aclose_readers()

    async def _end_workers(self, grace_seconds: float) -> None:
        if not await self._workers_ended(grace_seconds):
            for worker in self._workers:
                worker.cancel()
            self._hurry = False
            if not await self._workers_ended(_CANCEL_SECONDS):
                self._logger.warning(
                    "%d handlers of %s did not end within grace_seconds; their messages are handed"
                    " back, and delivered again",
                    *(self._working, self.name),
                )

    async def _workers_ended(self, seconds: float) -> bool:
        deadline = Deadline.after(seconds)
        with self._guard:
            while self._working and not self._hurry and not deadline.passed:
                await self._changed.wait(deadline.left())
            return not self._working

    async def _leave(self) -> None:
        with self._guard:
            for membership in self._memberships:
                membership.end()
            self._changed.wake()
        deadline = Deadline.after(_LEAVE_SECONDS)
        for job in self._jobs[: 2 * len(self._memberships)]:
            await job.finished(deadline.left())
        for membership in self._memberships:
            try:
                await membership.leave(deadline)
            except StepRedisError as error:
                self._logger.warning(
                    "%s could not leave group %r of stream %r; what it holds is delivered again"
                    " when its lease ends, within %g s: %s",
                    *(self.name, membership.group, membership.stream),
                    *(self._options.lease_seconds, error),
                )
        for job in self._jobs:
            job.cancel()

    # Working.

    def _start_worker(self, handle: aio.Handler[StepRedisMessage]) -> None:
        with self._guard:
            self._working += 1
        name = f"step_redis worker of {self.name}"
        self._workers.append(aio.start_worker(name, self._work, handle))

    async def _work(self, handle: aio.Handler[StepRedisMessage]) -> None:
        handling: _Handling | None = None
        try:
            while (handling := await self._next(by_worker=True)) is not None:
                await self._handle(handle, handling)
                if handling.abandoned:
                    return
        except BaseException as error:  # noqa: BLE001 - run raises it
            if not aio.is_being_cancelled():
                self._fail(error)
        finally:
            with self._guard:
                if handling is None or not handling.abandoned:
                    self._working -= 1
                    self._changed.wake()

    async def _next(self, *, by_worker: bool) -> _Handling | None:
        """Wait for a message to handle; None when it is time to stop."""
        while True:
            with self._guard:
                while True:
                    if self._stopping or self._failure is not None:
                        return None
                    handling, is_second = self._take(by_worker=by_worker)
                    if handling is not None:
                        break
                    await self._shared.arrivals.wait(None)
            try:
                if is_second:
                    # A handler that lost the lease is still at it here.
                    await handling.message.put_off(_PUT_OFF_SECONDS)
                elif handling.message.lost_too_often:
                    await self._give_up(
                        handling, "MaxLostDeliveries", "it was lost with its consumer too often"
                    )
                else:
                    return handling
            except LeaseLost:
                self._over(handling)

    def _take(self, *, by_worker: bool) -> tuple[_Handling | None, bool]:
        """Take what is ready, from each stream in turn; whether it is being handled already."""
        if not by_worker:
            settled = [one for one in self._handling.values() if one.message.is_settled]
            for handling in settled:
                self._over(handling)
        at = lease_now()
        for _ in self._memberships:
            self._turn = (self._turn + 1) % len(self._memberships)
            membership = self._memberships[self._turn]
            held = membership.take(at)
            if held is not None:
                time = aio.HandlingTime(self._options.handler_timeout_seconds)
                message = StepRedisMessage(
                    membership, held, self._dead[membership.origin_stream], time
                )
                key = (membership.stream, held.delivery.id)
                handling = _Handling(message, time, key, by_worker)
                is_second = key in self._handling
                if not is_second:
                    self._handling[key] = handling
                return handling, is_second
        return None, False

    def _over(self, handling: _Handling) -> None:
        with self._guard:
            if self._handling.get(handling.key) is handling:
                del self._handling[handling.key]

    async def _handle(self, handle: aio.Handler[StepRedisMessage], handling: _Handling) -> None:
        message = handling.message
        try:
            if message.error is not None:
                await self._give_up(handling, "DecodeError", message.error)
                return
            try:
                await handling.time.handle(handle, message)
            except (HandlerKindError, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                if aio.is_being_cancelled():
                    raise
                await self._failed(message, error)
            else:
                if not message.is_settled:
                    await message.ack()
        except LeaseLost:
            # It was logged; the group delivers the message again, or somebody settled it.
            pass
        finally:
            self._over(handling)

    async def _failed(self, message: StepRedisMessage, error: BaseException) -> None:
        """Retry a message whose handling failed, or give it up."""
        if message.is_settled:
            if not isinstance(error, LeaseLost):
                self._logger.warning(
                    "the handler failed after it had settled %r", message, exc_info=error
                )
            return
        is_retried = await message.fail(error)
        level = logging.WARNING if is_retried else logging.ERROR
        what = "it is retried" if is_retried else "it went to the dead-letter stream"
        self._logger.log(level, "handling %r failed; %s", message, what, exc_info=error)

    async def _give_up(self, handling: _Handling, kind: str, text: str) -> None:
        """Move a message to the dead-letter stream without handling it."""
        await handling.message.bury(kind, text)
        self._logger.error(
            "%r went to the dead-letter stream without being handled: %s", handling.message, text
        )
        self._over(handling)

    async def _watch(self, handle: aio.Handler[StepRedisMessage] | None) -> None:
        """Give up on handlers that take too long and cannot be ended, or do not end."""
        limit = (self._options.handler_timeout_seconds or 0) + _LOOK_SECONDS
        while True:
            with self._guard:
                await self._changed.wait(_LOOK_SECONDS)
                if self._state == "ended":
                    return
                overdue = [
                    handling
                    for handling in self._handling.values()
                    if now() - handling.time.started_at > limit and not handling.message.is_settled
                ]
                for handling in overdue:
                    handling.abandoned = True
                    self._over(handling)
                    self._working -= handling.by_worker
                    self._shared.counters.handlers_abandoned += 1
            for handling in overdue:
                if handling.by_worker and handle is not None:
                    self._start_worker(handle)
                await self._abandon(handling.message)

    async def _abandon(self, message: StepRedisMessage) -> None:
        error = HandlerTimeoutError(
            f"the handler took longer than {self._options.handler_timeout_seconds:g} s"
            " (handler_timeout_seconds)"
        )
        self._logger.error("%r: %s; it cannot be ended and is left behind", message, error)
        with suppress(LeaseLost):
            await message.fail(error)


def _dead_letter_stream(stream: str, options: ConsumerOptions) -> str:
    """Return where a stream's dead letters go."""
    default = dead_letter_stream(stream)
    dead = options.dead_letter_stream or default
    if not same_slot(stream, dead):
        raise ConfigurationError(
            f"dead_letter_stream {dead!r} does not lie in the Cluster slot of stream {stream!r}, so"
            f" that a message cannot be moved there in one step: use a name like {default!r}"
        )
    if dead == stream:
        raise ConfigurationError("dead_letter_stream must be another stream")
    return dead
