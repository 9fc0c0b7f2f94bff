"""What differs for blocking code: waiting, taking turns, jobs, and redis-py's classes."""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import redis
import redis.exceptions

from step_redis.deadline import Deadline
from step_redis.place import Place

__all__ = [
    "Connection",
    "ConnectionPool",
    "Job",
    "Places",
    "RedisPool",
    "SSLConnection",
    "TCPConnection",
    "give_connection",
    "read_reply",
    "sleep",
    "start",
    "take_connection",
]

Connection = redis.Connection
ConnectionPool = redis.BlockingConnectionPool
RedisPool = redis.ConnectionPool
"""What any pool of redis-py is an instance of."""

sleep = time.sleep


class TCPConnection(redis.Connection):
    """redis-py's connection, which an interrupt amid the handshake does not leave half made.

    Used as it is, it would go on without authentication and in another database.
    """

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Connect, or leave nothing behind."""
        try:
            super().connect_check_health(*args, **kwargs)
        except BaseException:
            self.disconnect()  # type: ignore[no-untyped-call]  # redis-py's
            raise


class SSLConnection(TCPConnection, redis.SSLConnection):
    """The same with TLS."""


class Places:
    """So many may go on at once; the others wait, first come, first served.

    A KeyboardInterrupt may strike between any two steps, also just before a place is given back.
    So places are not counted but held weakly: one that nobody holds any more is free.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken: weakref.WeakSet[Place] = weakref.WeakSet()
        self._waiting: deque[weakref.ref[Place]] = deque()
        self._changed = threading.Condition()

    def take(self, place: Place, seconds: float | None) -> bool:
        """Wait until the place can be had, at most so long; return whether it was."""
        deadline = Deadline.after(seconds)
        mine = weakref.ref(place)
        with self._changed:
            self._waiting.append(mine)
            try:
                while not self._is_next(mine):
                    if deadline.passed:
                        return False
                    left = deadline.left()
                    # What is freed by being forgotten tells nobody.
                    self._changed.wait(_LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS))
                self._taken.add(place)
                return True
            finally:
                self._waiting.remove(mine)
                self._changed.notify_all()

    def _is_next(self, mine: weakref.ref[Place]) -> bool:
        while self._waiting[0]() is None:
            self._waiting.popleft()
        return self._waiting[0] is mine and len(self._taken) < self._places

    def give(self, place: Place) -> None:
        """Give the place back, if it was had."""
        with self._changed:
            self._taken.discard(place)
            self._changed.notify_all()


_LOOK_SECONDS = 0.1


def take_connection(pool: RedisPool) -> Connection:
    """Return a connection of a pool of redis-py."""
    connection: Connection = pool.get_connection()
    return connection


def give_connection(pool: RedisPool, connection: Connection) -> None:
    """Give a connection back."""
    pool.release(connection)


class Job:
    """Something that was carried to its end."""

    def __init__(self, failure: Exception | None) -> None:
        self._failure = failure

    def finished(self, seconds: float | None) -> bool:  # noqa: ARG002 - the twin waits
        """Return True: a thread's job ends before anybody can ask."""
        return True

    def result(self) -> None:
        """Raise what made it fail."""
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> None:
        """Do nothing: it has ended."""


def start(function: Callable[..., None], *args: Any) -> Job:
    """Carry out a job in this thread."""
    try:
        function(*args)
    except Exception as failure:  # noqa: BLE001 - result() raises it, as a task does
        return Job(failure)
    return Job(None)


def read_reply(connection: Connection, seconds: float) -> Any:
    """Return the next reply, an error reply too, as bytes; wait at most so long."""
    try:
        return connection.read_response(disable_decoding=True, timeout=seconds)
    except redis.exceptions.ResponseError as error:
        return error
