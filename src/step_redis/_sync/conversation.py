# Generated from _async/conversation.py by build_hooks/generate_sync.py. Do not edit.
"""Commands of which several are on their way at once, over one connection."""

import sys
from typing import Any

from step_redis._backend import threads
from step_redis.commands import Command
from step_redis.place import Place

from .connections import Connections


class Conversation:
    """Sends commands ahead of the replies, which come in the same order.

    It has a connection from its first command on, until it breaks or is ended. All commands that
    have no reply yet are lost with it: each may have been carried out.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._place = Place()
        self._pool: threads.RedisPool | None = None
        self._connection: threads.Connection | None = None
        self._waiting = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, on which what was sent is answered."""
        return self._connection is not None

    def send(self, command: Command, effect: str) -> None:
        """Send a command, on a new connection if there is none.

        Raises:
            StepRedisError: It failed. If ``outcome_unknown``, everything sent is lost.
        """
        if self._connection is None:
            try:
                self._pool, self._connection = self._connections.converse(self._place)
            except BaseException:
                self._connections.end_conversation(self._place)
                raise
        handled = sys.exception()
        self._waiting += 1
        try:
            threads.send(self._connection, [command])
        except Exception as error:  # noqa: BLE001 - it raises what is no failure to talk
            self.end()
            failure = self._connections.failure(error, effect, handled)
        else:
            return
        raise failure

    def receive(self, effect: str) -> Any:
        """Return the next reply, an error reply too.

        Raises:
            StepRedisError: It failed: everything sent is lost.
        """
        if self._connection is None:
            raise AssertionError("nothing was sent on this connection")
        handled = sys.exception()
        try:
            seconds = self._connections.target.socket_seconds
            reply = threads.read_reply(self._connection, seconds)
            self._waiting -= 1
        except Exception as error:  # noqa: BLE001 - it raises what is no failure to talk
            self.end()
            failure = self._connections.failure(error, effect, handled)
        else:
            return reply
        raise failure

    def end(self) -> None:
        """Give the connection back; close it if something is still on its way."""
        pool, connection, waiting = self._pool, self._connection, self._waiting
        self._pool, self._connection, self._waiting = None, None, 0
        try:
            if pool is not None and connection is not None:
                if waiting:
                    connection.disconnect(nowait=True)
                threads.give_connection(pool, connection)
        finally:
            self._connections.end_conversation(self._place)
