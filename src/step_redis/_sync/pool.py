# Generated from _async/pool.py by build_hooks/generate_sync.py. Do not edit.
"""StepRedisPool: connections to one server, opened when needed and closed together."""

import logging
from types import TracebackType
from typing import Self

from step_redis._backend import threads
from step_redis.arguments import check_type
from step_redis.errors import ConfigurationError
from step_redis.options import check_tls_files, pool_options
from step_redis.params import StepRedisPoolParams

from .connections import Connections

_logger = logging.getLogger("step_redis")


class StepRedisPool:
    """Connections to one server: a redis-py pool for commands, another for reads that wait.

    Used as a context manager, it closes them at the end. Connections are made when they are
    needed, so that making a pool sends nothing; `StepRedisStream.ping` tells whether the server
    can be reached.

    Args:
        params: Where the server is and how to talk to it.
        logger: Where to log; None is the logger ``step_redis``.

    Raises:
        ConfigurationError: A TLS file is missing or unusable, or the password of its key is wrong.
    """

    def __init__(self, params: StepRedisPoolParams, logger: logging.Logger | None = None) -> None:
        check_type("params", params, StepRedisPoolParams)
        self._params = params
        self._logger = logger or _logger
        if params.ssl_enable:
            check_tls_files(params)
            if not params.ssl_cert_requested:
                self._logger.warning(
                    "ssl_cert_requested is False: the certificate of %s:%d is not verified, so"
                    " that TLS gives no protection against an attacker in between",
                    params.host,
                    params.port,
                )
        self._pool = threads.ConnectionPool(
            connection_class=threads.SSLConnection if params.ssl_enable else threads.TCPConnection,
            **pool_options(params),
        )
        self.connections = Connections(
            self._pool, params.max_read_connections, params.connection_available_timeout
        )

    def __repr__(self) -> str:
        return f"StepRedisPool({self._params!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def get_pool(self) -> threads.ConnectionPool:
        """Return the redis-py ``BlockingConnectionPool``, for commands of your own.

        Hand it to a redis-py client: ``Redis(connection_pool=pool.get_pool())``. Reads that wait
        on the server hold one of its ``max_connections``.
        """
        return self._pool

    def close(self) -> None:
        """Close all connections; streams that use the pool raise `PoolClosedError` from now on."""
        self.connections.close()
        self._logger.debug("closed the connections to %s", self.connections.target.name)


def connections_of(pool: StepRedisPool | threads.RedisPool) -> Connections:
    """Return the connections of a pool; for a pool of redis-py's own, those for reads are new.

    Raises:
        ConfigurationError: It is no pool, or of the other flavour.
    """
    if isinstance(pool, StepRedisPool):
        return pool.connections
    if isinstance(pool, threads.RedisPool):
        # A pool that does not wait for a free connection has no time for it.
        return Connections(pool, available_seconds=getattr(pool, "timeout", 0))
    raise ConfigurationError(
        "pool must be a StepRedisPool or a redis-py connection pool of the same flavour;"
        f" got {type(pool).__module__}.{type(pool).__qualname__}"
    )
