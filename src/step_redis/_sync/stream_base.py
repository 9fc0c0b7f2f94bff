# Generated from _async/stream_base.py by build_hooks/generate_sync.py. Do not edit.
"""What the parts of StepRedisStream share."""

import logging
from typing import Any

from redis.exceptions import ResponseError

from step_redis._backend import threads
from step_redis.codec import Codec
from step_redis.commands import Command
from step_redis.errors import PoolClosedError
from step_redis.failures import is_reply, reply_failure

from .pool import StepRedisPool, connections_of

_logger = logging.getLogger("step_redis")


class StreamBase:
    """The connections and the codec of a stream object."""

    def __init__(
        self, pool: StepRedisPool | threads.RedisPool, logger: logging.Logger | None, codec: Codec
    ) -> None:
        self._logger = logger or _logger
        self._codec = codec
        self._connections = connections_of(pool)
        self._closed = False

    def __repr__(self) -> str:
        return f"StepRedisStream({self._connections.target.name})"

    def _call(
        self, *commands: Command, effect: str | None = None, allowed: str = ""
    ) -> list[Any]:
        """Send commands; raise the first error reply but those of the allowed code."""
        self._check_open()
        replies = self._connections.call(*commands, effect=effect)
        for reply in replies:
            if isinstance(reply, ResponseError) and not is_reply(reply, allowed):
                raise reply_failure(reply, self._connections.target)
        return replies

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError("the stream is closed")
