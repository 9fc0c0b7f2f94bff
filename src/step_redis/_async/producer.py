# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it.
"""Operations that take effect once, however often they are sent."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from step_redis._backend import aio
from step_redis.backoff import delays
from step_redis.commands import Argument, xadd
from step_redis.deadline import Deadline
from step_redis.errors import (
    ConfigurationError,
    ServerLoadingError,
    StepRedisError,
)
from step_redis.failures import is_without_scripts
from step_redis.ledger import Lanes, Numbered, Operation
from step_redis.outage import passes_by_itself
from step_redis.publishing import written_effect

from .connections import Connections


class Producer:
    """Carries out operations for one stream object; a lost reply is asked for again.

    Args:
        connections: What to send them on.
        logger: Where to tell that a reply was lost.
        retry_seconds: For how long after the first loss an operation is repeated; 0 does without
            scripts, and so without repeating.
    """

    def __init__(
        self, connections: Connections, logger: logging.Logger, retry_seconds: float
    ) -> None:
        self.connections = connections
        self.lanes = Lanes()
        self._plain: set[str] = set()
        self._logger = logger
        self._retry_seconds = retry_seconds

    def is_plain(self, stream: str) -> bool:
        """Whether scripts cannot be used for a stream, or are not to be used."""
        return not self._retry_seconds or stream in self._plain

    def may_fall_back(self, error: StepRedisError) -> bool:
        """Whether what failed did so because scripts cannot be used, so that plain XADD may do."""
        if isinstance(error, ConfigurationError):
            return True
        return not error.outcome_unknown and is_without_scripts(error)

    def fell_back(self, stream: str, error: StepRedisError) -> None:
        """Take note that a stream can be published to, but not by scripts."""
        if stream not in self._plain:
            self._plain.add(stream)
            self._logger.warning(
                "publishing to %r takes plain XADD, and is not repeated if a reply is lost: %s",
                *(stream, error),
            )

    async def add_plainly(
        self, stream: str, messages: Iterable[Sequence[bytes]], options: Sequence[Argument]
    ) -> list[Any]:
        """Append messages without a script; return ids and error replies."""
        commands = [xadd(stream, fields, options) for fields in messages]
        return await self.connections.call(*commands, effect=written_effect(len(commands)))

    def number(self, stream: str, operation: Operation) -> Numbered:
        """Return an operation under a number of a lane that is its own until it is finished.

        Raises:
            ConfigurationError: No key beside the stream can share its Cluster slot.
        """
        return Numbered(operation, self.lanes.take(stream))

    async def carry_out(self, stream: str, operation: Operation) -> bytes:
        """Carry out an operation once; return its result.

        Raises:
            ConfigurationError: No key beside the stream can share its Cluster slot.
            StepRedisError: It failed; ``outcome_unknown`` if it may have taken effect all the same.
        """
        return await self.finish(self.number(stream, operation))

    async def finish(
        self, numbered: Numbered, tell_lost: Callable[[], None] | None = None
    ) -> bytes:
        """Carry out an operation that `number` returned; arguments and errors as of `resolve`."""
        try:
            result = await self.resolve(numbered, tell_lost)
        except StepRedisError:
            self.let_go(numbered, is_done=False)
            raise
        self.let_go(numbered, is_done=True)
        return result

    def let_go(self, numbered: Numbered, *, is_done: bool) -> None:
        """Let the lane of an operation be used on, if it can be."""
        if is_done or numbered.withdraw():
            self.lanes.give(numbered.lane)

    async def resolve(
        self, numbered: Numbered, tell_lost: Callable[[], None] | None = None
    ) -> bytes:
        """Send an operation until it is known what came of it; return its result.

        Args:
            numbered: The operation. If it was sent before, it is not known what came of that.
            tell_lost: Called when it failed and is tried again, which may take long.

        Raises:
            StepRedisError: It failed; ``outcome_unknown`` if it may have taken effect all the same.
        """
        deadline: Deadline | None = None
        pauses = delays()
        while True:
            if numbered.lost is not None and numbered.is_too_old:
                raise numbered.forgotten()
            try:
                reply = await self.connections.run(
                    numbered.call(), effect=numbered.operation.effect
                )
            except StepRedisError as error:
                if error.outcome_unknown:
                    numbered.lost = error
                elif numbered.lost is None and not isinstance(error, ServerLoadingError):
                    raise
                deadline = deadline or Deadline.after(self._patience(numbered))
                if deadline.passed or not (error.outcome_unknown or passes_by_itself(error)):
                    if numbered.lost in (None, error):
                        raise
                    raise numbered.lost from error
                self._logger.info(
                    "stream %r: trying again to publish: %s", numbered.lane.stream, error
                )
                if tell_lost is not None:
                    tell_lost()
                await aio.sleep(next(pauses))
                continue
            result = numbered.read(reply)
            if result is not None:
                return result

    def _patience(self, numbered: Numbered) -> float:
        """Return how long to try: a server that is loading is one that cannot be reached."""
        target = self.connections.target
        return target.connect_seconds if numbered.lost is None else self._retry_seconds
