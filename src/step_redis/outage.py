"""A server that is away for a while: which failures mean that, how long it is waited for."""

import logging
from collections.abc import Iterator

import attrs

from step_redis.backoff import delays
from step_redis.errors import (
    ConnectionFailedError,
    OperationTimeoutError,
    PoolExhaustedError,
    ServerError,
    ServerLoadingError,
    ServerOutOfMemoryError,
    ServerReadOnlyError,
    StepRedisError,
    TlsFailedError,
)

__all__ = ["Outage", "passes_by_itself"]

_PASSING = (
    ConnectionFailedError,
    OperationTimeoutError,
    PoolExhaustedError,
    ServerLoadingError,
    ServerOutOfMemoryError,
    ServerReadOnlyError,
)

_PASSING_CODES = frozenset(
    {"BUSY", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "TRYAGAIN"}
)


def passes_by_itself(error: StepRedisError) -> bool:
    """Whether trying again later may help: the server is away, or takes no writes just now."""
    if isinstance(error, TlsFailedError):
        return False
    return isinstance(error, _PASSING) or (
        isinstance(error, ServerError) and error.code in _PASSING_CODES
    )


@attrs.define
class Outage:
    """The outage that is going on, if one is; told when it begins and when it is over."""

    about: str
    limit_seconds: float | None
    logger: logging.Logger
    level: int
    _since: float | None = None
    _delays: Iterator[float] = attrs.field(factory=delays)

    def failed(self, error: StepRedisError, at: float) -> float:
        """Take note of a failure; return in how many seconds to try again.

        Raises:
            StepRedisError: The failure, if it does not pass by itself or lasts for too long.
        """
        if not passes_by_itself(error):
            raise error
        if self._since is None:
            self._since = at
            self.logger.log(self.level, "%s waits for the server: %s", self.about, error)
        elif self.limit_seconds is not None and at - self._since >= self.limit_seconds:
            raise error
        return next(self._delays)

    def over(self, at: float) -> None:
        """The server answers."""
        if self._since is not None:
            self.logger.log(self.level, "%s goes on after %.1f s", self.about, at - self._since)
            self._since = None
            self._delays = delays()
