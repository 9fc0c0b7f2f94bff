# Generated from _async/connections.py by build_hooks/generate_sync.py. Do not edit.
"""Calls to the server over redis-py's connections, each bounded in time and never repeated."""

from typing import Any

from step_redis._backend import threads
from step_redis.backoff import delays
from step_redis.commands import Command
from step_redis.deadline import Deadline
from step_redis.errors import ConnectionFailedError, PoolClosedError, PoolExhaustedError
from step_redis.failures import REDIS_FAILURES, connect_failure, talk_failure
from step_redis.options import Target, reader_options

READ_MARGIN_SECONDS = 5.0
"""How long after its wait a read must be answered, unless ``socket_timeout`` is shorter."""


class Connections:
    """The connections to one server: some for commands, others for reads that wait."""

    def __init__(
        self,
        commands: threads.RedisPool,
        max_read_connections: int = 100,
        available_seconds: float | None = None,
    ) -> None:
        self._commands = commands
        self._readers = threads.ConnectionPool(
            connection_class=commands.connection_class,
            **reader_options(commands.connection_kwargs, max_read_connections, available_seconds),
        )
        self._reader_places = threads.Places(max_read_connections)
        self._available_seconds = available_seconds
        self._closed = False
        self.target = Target.of(commands.connection_kwargs)

    def call(self, *commands: Command, effect: str | None = None) -> list[Any]:
        """Send commands in one trip and return their replies, error replies included.

        Args:
            commands: What to send, in this order.
            effect: What may have happened if the reply is lost; None if nothing can have.
        """
        return self._talk(self._commands, commands, effect, self.target.socket_seconds)

    def reserve_reader(self, seconds: float | None) -> None:
        """Wait for one of the connections for reads, at most so long; `free_reader` gives it back.

        Raises:
            PoolExhaustedError: All stayed in use.
        """
        limits = [limit for limit in (seconds, self._available_seconds) if limit is not None]
        if not self._reader_places.take(min(limits, default=None)):
            raise PoolExhaustedError(
                f"all connections to {self.target.name} for reads stayed in use:"
                " raise max_read_connections"
            )

    def free_reader(self) -> None:
        """Give back what `reserve_reader` took."""
        self._reader_places.give()

    def read(self, *commands: Command, wait_seconds: float, effect: str) -> list[Any]:
        """Send commands of which the last waits so long on the server; return their replies."""
        margin = min(self.target.socket_seconds, READ_MARGIN_SECONDS)
        return self._talk(self._readers, commands, effect, wait_seconds + margin)

    def aclose_readers(self) -> None:
        """Close the connections for reads."""
        self._closed = True
        self._readers.disconnect()

    def close(self) -> None:
        """Close all connections; later calls raise `PoolClosedError`."""
        self.aclose_readers()
        self._commands.disconnect()

    def _talk(
        self,
        pool: threads.RedisPool,
        commands: tuple[Command, ...],
        effect: str | None,
        seconds: float,
    ) -> list[Any]:
        connection = self._connection(pool)
        try:
            packed = connection.pack_commands(commands)
            connection.send_packed_command(packed, check_health=False)
            return [threads.read_reply(connection, seconds) for _ in commands]
        except REDIS_FAILURES as error:
            failure = talk_failure(error, self.target, effect)
        except BaseException:
            # Half a conversation: what comes next on this connection belongs to nobody.
            connection.disconnect(nowait=True)
            raise
        finally:
            pool.release(connection)
        # Raised here, and not above, it does not carry redis-py's error and its text along.
        raise failure

    def _connection(self, pool: threads.RedisPool) -> threads.Connection:
        """Return a working connection; a server that is away for a moment is waited for."""
        deadline = Deadline.after(self.target.connect_seconds)
        for delay in delays():
            if self._closed:
                raise PoolClosedError(f"the connections to {self.target.name} are closed")
            try:
                connection: threads.Connection = pool.get_connection()
                try:
                    connection.check_health()
                except BaseException:
                    connection.disconnect(nowait=True)
                    pool.release(connection)
                    raise
            except REDIS_FAILURES as error:
                failure = connect_failure(error, self.target)
            else:
                return connection
            if type(failure) is not ConnectionFailedError or deadline.passed:
                raise failure
            threads.sleep(delay)
        raise AssertionError("delays() never ends")
