# Generated from _async/consumer.py by build_hooks/generate_sync.py. Do not edit.
"""StepRedisConsumer: messages of a group handled, each until it is settled."""

import logging
import os
import socket
from collections.abc import Iterator, Callable, Iterable
from contextlib import nullcontext
from itertools import chain, islice
from secrets import token_hex
from types import TracebackType
from typing import Any, Literal, Self

import attrs

from step_redis._backend import threads
from step_redis.arguments import check_name, check_type
from step_redis.codec import Codec
from step_redis.deadline import Deadline, now
from step_redis.errors import ConfigurationError, PoolClosedError, StepRedisError
from step_redis.failures import Subject, told
from step_redis.health import (
    ConsumerHealth,
    Probe,
    health_commands,
    is_stuck,
    stream_health,
)
from step_redis.keys import dead_letter_stream, redrive_group, same_slot
from step_redis.policy import ConsumerOptions
from step_redis.prefetch import Prefetch

from .branch import Branch
from .crew import Crew
from .membership import Membership, Shared
from .message import StepRedisMessage
from .pool import StepRedisPool, connections_of
from .taking import Taking

_logger = logging.getLogger("step_redis")

_LEAVE_SECONDS = 5.0
"""How long leaving the group may be tried."""

_HEALTH_SECONDS = 1.0
"""How long the server may take to answer a probe."""

_REDRIVEN_PART = 10
"""Redriven messages may take one of so many parts of what is held ready."""


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
        pool: StepRedisPool | threads.RedisPool,
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
        self.name = options.name or f"{socket.gethostname()}-{os.getpid()}-{token_hex(2)}"
        self._guard = threads.Guard()
        self._shared = Shared(
            self._connections,
            options,
            Codec(default=default, foreign=foreign),
            self._logger,
            self._guard,
            arrivals=threads.Signal(self._guard),
            changed=threads.Signal(self._guard),
        )
        self._branches = [branch for name in names for branch in self._branches_of(name)]
        self._taking = Taking(self._shared, self._branches)
        self._crew = Crew(self._shared, self.name, self._branches, self._taking)
        self._jobs: list[threads.Worker] = []
        self._keepers: list[threads.Worker] = []
        self._state: Literal["new", "running", "ending", "ended"] = "new"
        self._runs = False
        self._iterations = 0
        self._signals = 0
        self._started_at = now()

    def _branches_of(self, stream: str) -> Iterable[Branch]:
        """Make the part in the group, and that in the group of its redriven messages."""
        dead = _dead_letter_stream(stream, self._options)
        most = max(1, self._options.prefetch // len(self._streams))
        least = min(most, self._options.concurrency)
        few = max(1, most // _REDRIVEN_PART)
        own = Membership(
            *(self._shared, stream, self._group, self.name), prefetch=Prefetch(least, most)
        )
        redriven = Membership(
            *(self._shared, dead, redrive_group(stream, self._group), self.name),
            prefetch=Prefetch(min(least, few), few),
            origin=(stream, self._group),
        )
        return Branch.of(own, dead), Branch.of(redriven, dead)

    def __repr__(self) -> str:
        return (
            f"StepRedisConsumer({', '.join(map(repr, self._streams))}, group={self._group!r},"
            f" name={self.name!r})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, handle: threads.Handler[StepRedisMessage], *, signals: bool = False) -> None:
        """Handle messages until the consumer is stopped.

        A message is acknowledged when ``handle`` returns, unless it settled the message itself,
        and retried or given up as the retry policy says when it raises. Entries that cannot be
        decoded go to the dead-letter stream without being handled. Acknowledgements wait some
        milliseconds for others, which go with the same call. None are left when it returns, unless
        the server was away until the grace time was over; then those messages come again.

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
            threads.check_handler(handle)
            with threads.signals_call(self._signalled) if signals else nullcontext():
                self._start(handle)
                grace = 0.0
                try:
                    self._crew.start(handle)
                    with self._guard:
                        while not self._shared.is_over:
                            self._shared.changed.wait(None)
                    grace = self._options.grace_seconds
                finally:
                    self._end(grace)
            self._raise_failure()

    def __iter__(self) -> Iterator[StepRedisMessage]:
        """Yield messages, which the caller settles, until the consumer is stopped.

        When the loop is left, what it was not given yet is handed back; what it was given and did
        not settle is held until the consumer is closed.

        Raises:
            StepRedisError: As for `run`.
        """
        self._start(None)
        try:
            while (case := self._taking.next()) is not None:
                yield StepRedisMessage(case)
        finally:
            self._stop_bringing()
        self._raise_failure()

    def stop(self) -> None:
        """Let `run` and iterations end; may be called from handlers, signals and threads.

        Nothing is read any more; what is held and not being handled is handed back at once, and
        other consumers get it within a second; handlers may go on for ``grace_seconds``.
        """
        self._shared.stopping = True
        for branch in self._branches:
            branch.membership.close_from_anywhere()
        self._shared.changed.wake_from_anywhere()
        self._shared.arrivals.wake_from_anywhere()

    def close(self) -> None:
        """Stop, and wait until everything is handed back and the consumer has left the group."""
        self.stop()
        self._end(self._options.grace_seconds)

    def health(self) -> ConsumerHealth:
        """Return how the consumer and its groups are doing.

        It costs the server a few microseconds, however much is pending, so that a probe may ask
        every second. A server that does not answer within about a second is no failure of this
        call: ``error`` says so.
        """
        own = [branch for branch in self._branches if not branch.membership.redrives]
        asked = [
            health_commands(branch.membership.keys, self._group, branch.dead) for branch in own
        ]
        probe = Probe(tuple(chain.from_iterable(asked)))
        # A connection that is being made has a time of its own, which may be much longer.
        probing = threads.start_worker(f"step_redis probe of {self.name}", self._probe, probe)
        if not probing.finished(2 * _HEALTH_SECONDS):
            probing.cancel()
        answers, error = iter(probe.replies), probe.error
        streams = [
            stream_health(
                branch.membership.stream, self._group, list(islice(answers, len(commands)))
            )
            for branch, commands in zip(own, asked, strict=True)
        ]
        with self._guard:
            shared, at = self._shared, now()
            handling = [case.seconds for case in self._taking.handling()]
            health = ConsumerHealth(
                running=self._state == "running",
                stuck=False,
                error=error,
                seconds_since_read=_since(shared.last_read, at),
                seconds_since_settled=_since(shared.last_settled, at),
                ready=sum(len(branch.membership.ready) for branch in self._branches),
                handling=len(handling),
                longest_handling_seconds=max(handling, default=0),
                streams=tuple(streams),
                counters=attrs.evolve(shared.counters),
            )
            is_settling = not all(branch.gathering.is_idle for branch in self._branches)
            seen = (shared.last_read, shared.last_settled, self._started_at)
        idle_seconds = at - max(moment for moment in seen if moment is not None)
        timeout = self._options.handler_timeout_seconds or 0
        limit = max(self._options.stuck_seconds, timeout)
        stuck = is_stuck(health, idle_seconds, limit, is_settling=is_settling)
        return attrs.evolve(health, stuck=stuck)

    def _probe(self, probe: Probe) -> None:
        try:
            probe.answered(
                self._connections.call(
                    *probe.commands, within=_HEALTH_SECONDS, seconds=_HEALTH_SECONDS
                )
            )
        except StepRedisError as error:
            probe.error = str(error)

    def _start(self, handle: threads.Handler[StepRedisMessage] | None) -> None:
        """Let messages be brought: to `run` if there is a handler, else to an iteration."""
        self._shared.changed.attach()
        self._shared.arrivals.attach()
        with self._guard:
            if self._state in ("ending", "ended"):
                raise PoolClosedError("the consumer was closed: make another one")
            if self._state == "running" and (handle is not None or self._runs):
                raise ConfigurationError("the consumer is running already")
            self._iterations += handle is None
            for branch in self._branches:
                branch.membership.open()
            if self._state == "running":
                return
            self._state, self._runs = "running", handle is not None
            self._started_at = now()
        for branch in self._branches:
            self._keepers.append(self._job("keeper", branch.keeper.keep))
            self._keepers.append(self._job("reader", branch.intake.read))
            self._job("sender", branch.gathering.keep_sending)
        if self._options.handler_timeout_seconds is not None:
            self._job("watch", self._crew.watch, handle)

    def _job(self, kind: str, function: Callable[..., Any], *args: Any) -> threads.Worker:
        name = f"step_redis {kind} of {self.name}"
        job = threads.start_worker(name, self._carry_out, function, *args)
        self._jobs.append(job)
        return job

    def _carry_out(self, function: Callable[..., Any], *args: Any) -> None:
        """Let a job's failure be the consumer's."""
        try:
            function(*args)
        except BaseException as error:  # noqa: BLE001 - run raises it
            if not threads.is_being_cancelled():
                self._shared.fail(error)

    def _raise_failure(self) -> None:
        if self._shared.failure is not None:
            raise self._shared.failure

    def _signalled(self) -> None:
        self._signals += 1
        self._crew.hurry = self._signals > 1
        self.stop()

    def _stop_bringing(self) -> None:
        """An iteration was left; after the last one nothing more is brought."""
        with self._guard:
            self._iterations -= 1
            if self._iterations or self._state != "running":
                return
            for branch in self._branches:
                branch.membership.close()
        for branch in self._branches:
            branch.settler.hand_back()

    def _end(self, grace_seconds: float) -> None:
        """Stop everything in order; whoever else wants to waits for it."""
        with self._guard:
            while self._state == "ending":
                self._shared.changed.wait(None)
            if self._state != "running":
                self._state = "ended"
                return
            self._state, self._shared.stopping = "ending", True
            for branch in self._branches:
                branch.membership.close()
            self._shared.arrivals.wake()
        try:
            for branch in self._branches:
                self._job("hand back", branch.settler.hand_back)
            self._crew.end(grace_seconds)
            self._leave()
        finally:
            with self._guard:
                for branch in self._branches:
                    branch.membership.end()
                    branch.membership.let_go()
                self._state = "ended"
                self._shared.changed.wake()
            self._crew.cancel()
            for job in self._jobs:
                job.cancel()
            self._shared.tell()
            if self._owns_readers:
                self._connections.aclose_readers()

    def _leave(self) -> None:
        with self._guard:
            for branch in self._branches:
                branch.membership.end()
        deadline = Deadline.after(_LEAVE_SECONDS)
        for keeper in self._keepers:
            keeper.finished(deadline.left())
        for branch in self._branches:
            try:
                branch.keeper.leave(deadline)
            except StepRedisError as error:
                self._logger.warning(
                    "%s could not leave group %r of stream %r; what it holds is delivered again"
                    " when its lease ends, within %g s: %s",
                    *(self.name, branch.membership.group, branch.membership.stream),
                    *(self._options.lease_seconds, error),
                )
                if deadline.passed:
                    # The others would wait for the same server.
                    return


def _since(moment: float | None, at: float) -> float | None:
    return None if moment is None else at - moment


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
