"""What differs for blocking code: waiting, taking turns, jobs, and redis-py's classes."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
import redis.exceptions

__all__ = [
    "Connection",
    "ConnectionPool",
    "Job",
    "Places",
    "RedisPool",
    "SSLConnection",
    "TCPConnection",
    "Turn",
    "read_reply",
    "sleep",
    "start",
]

Connection = redis.Connection
ConnectionPool = redis.BlockingConnectionPool
TCPConnection = redis.Connection
SSLConnection = redis.SSLConnection
RedisPool = redis.ConnectionPool
"""What any pool of redis-py is an instance of."""

sleep = time.sleep


class Turn:
    """Who holds it may go on; the others wait.

    A KeyboardInterrupt may strike between any two steps. It belongs to a thread, so that a thread
    that was interrupted before it gave it back takes it again and then gives it back for good.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def take(self, seconds: float | None) -> bool:
        """Wait for the turn, at most so long; return whether it was had."""
        return self._lock.acquire(timeout=_longest(seconds))

    def give(self) -> None:
        """Let the next one go on."""
        with suppress(RuntimeError):
            while True:
                self._lock.release()


class Places:
    """A turn that so many may hold at once."""

    def __init__(self, places: int) -> None:
        self._places = threading.Semaphore(places)

    def take(self, seconds: float | None) -> bool:
        """Wait for a place, at most so long; return whether it was had."""
        return self._places.acquire(timeout=_longest(seconds))

    def give(self) -> None:
        """Let the next one go on."""
        self._places.release()


def _longest(seconds: float | None) -> float:
    """Return what a lock takes for a timeout."""
    return threading.TIMEOUT_MAX if seconds is None else min(seconds, threading.TIMEOUT_MAX)


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
