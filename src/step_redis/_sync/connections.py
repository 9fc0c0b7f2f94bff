# Generated from _async/connections.py by build_hooks/generate_sync.py. Do not edit.
"""Calls to the server over redis-py's connections, each bounded in time and never repeated."""

import sys
from typing import Any

from redis.exceptions import ResponseError

from step_redis._backend import threads
from step_redis.backoff import delays
from step_redis.commands import Command
from step_redis.deadline import now
from step_redis.errors import (
    ConnectionFailedError,
    PoolClosedError,
    PoolExhaustedError,
    ServerLoadingError,
    StepRedisError,
)
from step_redis.failures import (
    REDIS_FAILURES,
    connect_failure,
    is_reply,
    reply_failure,
    talk_failure,
)
from step_redis.options import Target, reader_options
from step_redis.place import Place
from step_redis.script_calls import ScriptCall

READ_MARGIN_SECONDS = 5.0
"""How long after its wait a read must be answered, unless ``socket_timeout`` is shorter."""


class Connections:
    """The connections to one server: a pool for commands, another for reads that wait."""

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
        # First come, first served, and bounded for each call: redis-py's pools are neither.
        self._command_places = threads.Places(commands.max_connections)
        self._reader_places = threads.Places(max_read_connections)
        self._available_seconds = available_seconds
        self._closed = False
        self.target = Target.of(commands.connection_kwargs)

    @property
    def margin_seconds(self) -> float:
        """How long a call may take beyond the wait that it was told."""
        return min(self.target.socket_seconds, READ_MARGIN_SECONDS)

    def call(
        self,
        *commands: Command,
        effect: str | None = None,
        within: float | None = None,
        seconds: float | None = None,
        apart: bool = False,
    ) -> list[Any]:
        """Send commands in one trip and return their replies, error replies included.

        Args:
            commands: What to send, in this order.
            effect: What may have happened if the reply is lost; None if nothing can have.
            within: Seconds to get a connection in; None leaves it to the pool's limits.
            seconds: How long an answer may take at most; None leaves it to ``socket_timeout``.
            apart: Whether to use a connection for reads, so that what users do with all those for
                commands is not in the way.
        """
        place = Place()
        pool, places = self._commands, self._command_places
        if apart:
            pool, places = self._readers, self._reader_places
        try:
            self._take_place(places, place, within)
            seconds = self.target.socket_seconds if seconds is None else seconds
            return self._talk(pool, commands, effect, seconds, within)
        finally:
            places.give(place)

    def run(
        self,
        script: ScriptCall,
        *,
        effect: str | None,
        within: float | None = None,
        seconds: float | None = None,
        apart: bool = False,
    ) -> list[Any]:
        """Run a script and return its reply; arguments as for `call`.

        Raises:
            StepRedisError: Also for an error reply; the script changed nothing then.
        """
        [reply] = self.call(
            script.by_sha(), effect=effect, within=within, seconds=seconds, apart=apart
        )
        if is_reply(reply, "NOSCRIPT"):
            [reply] = self.call(
                script.by_text(), effect=effect, within=within, seconds=seconds, apart=apart
            )
        if isinstance(reply, ResponseError):
            raise reply_failure(reply, self.target)
        answer: list[Any] = reply
        return answer

    def converse(self, place: Place) -> tuple[threads.RedisPool, threads.Connection]:
        """Return a connection for commands, to send on several before the replies are read.

        Whoever uses it gives it back to its pool, and then the place with `end_conversation`.
        """
        self._take_place(self._command_places, place, None)
        return self._commands, self._connection(self._commands, None)

    def end_conversation(self, place: Place) -> None:
        """Give back what `converse` took, if it did."""
        self._command_places.give(place)

    def reserve_reader(self, place: Place, within: float | None) -> None:
        """Wait for one of the connections for reads, at most so long; `free_reader` gives it back.

        Raises:
            PoolExhaustedError: All stayed in use.
        """
        self._take_place(self._reader_places, place, within)

    def free_reader(self, place: Place) -> None:
        """Give back what `reserve_reader` took, if it did."""
        self._reader_places.give(place)

    def read(
        self, *commands: Command, wait_seconds: float, effect: str, within: float | None
    ) -> list[Any]:
        """Send commands of which the last waits so long on the server; return their replies."""
        seconds = wait_seconds + self.margin_seconds
        return self._talk(self._readers, commands, effect, seconds, within)

    def aclose_readers(self) -> None:
        """Close the connections for reads."""
        self._closed = True
        self._readers.disconnect()

    def close(self) -> None:
        """Close all connections; later calls raise `PoolClosedError`."""
        self.aclose_readers()
        self._commands.disconnect()

    def _take_place(self, places: threads.Places, place: Place, within: float | None) -> None:
        seconds = self._available_seconds
        if within is not None:
            seconds = within if seconds is None else min(within, seconds)
        if places.take(place, seconds):
            return
        which, limit = "", "max_connections or connection_available_timeout"
        if places is self._reader_places:
            which, limit = " for reads", "max_read_connections"
        raise PoolExhaustedError(
            f"all connections to {self.target.name}{which} stayed in use: raise {limit}"
        )

    def _talk(
        self,
        pool: threads.RedisPool,
        commands: tuple[Command, ...],
        effect: str | None,
        seconds: float,
        within: float | None,
    ) -> list[Any]:
        handled = sys.exception()
        connection = self._connection(pool, within)
        done = False
        try:
            replies = threads.exchange(connection, commands, seconds)
            done = True
        except Exception as error:  # noqa: BLE001 - it raises what is no failure to talk
            failure = self.failure(error, effect, handled)
        else:
            return replies
        finally:
            if not done:
                # Half a conversation: what comes next on this connection belongs to nobody.
                connection.disconnect(nowait=True)
            threads.give_connection(pool, connection)
        # Raised here, and not above, it does not carry redis-py's error and its text along.
        raise failure

    def failure(
        self, error: Exception, effect: str | None, handled: BaseException | None
    ) -> StepRedisError:
        """Return what a failure amid a conversation means; raise one that is none of it."""
        if isinstance(error, REDIS_FAILURES):
            return talk_failure(error, self.target, effect, handled)
        # redis-py stumbles over a connection that is closed under it.
        if not self._closed:
            raise error
        return self._closed_failure(effect)

    def _connection(self, pool: threads.RedisPool, within: float | None) -> threads.Connection:
        """Return a working connection; a server that is away for a moment is waited for."""
        handled = sys.exception()
        began = now()
        for delay in delays():
            self._check_open()
            try:
                connection = threads.take_connection(pool)
                try:
                    threads.check_health(connection)
                    # Closing does not wait for connections that are being made.
                    self._check_open()
                except BaseException:
                    connection.disconnect(nowait=True)
                    threads.give_connection(pool, connection)
                    raise
            except REDIS_FAILURES as error:
                failure = connect_failure(error, self.target, handled)
            except Exception:
                if not self._closed:
                    raise
                failure = self._closed_failure(None)
            else:
                return connection
            is_away = type(failure) in (ConnectionFailedError, ServerLoadingError)
            limit = self.target.connect_seconds if within is None else within
            if not is_away or now() - began >= min(limit, self.target.connect_seconds):
                raise failure
            threads.sleep(delay)
        raise AssertionError("delays() never ends")

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_failure(None)

    def _closed_failure(self, effect: str | None) -> StepRedisError:
        outcome = f"; {effect}" if effect else ""
        return PoolClosedError(
            f"the connections to {self.target.name} are closed{outcome}",
            outcome_unknown=effect is not None,
        )
