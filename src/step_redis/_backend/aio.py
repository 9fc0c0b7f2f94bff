"""What differs for asyncio: waiting, taking turns, jobs, and redis-py's classes."""

import asyncio
import builtins
import math
from collections.abc import Callable, Coroutine
from typing import Any

import redis.asyncio
import redis.asyncio.connection
import redis.exceptions

from step_redis.errors import PoolClosedError
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

Connection = redis.asyncio.connection.AbstractConnection
ConnectionPool = redis.asyncio.BlockingConnectionPool
TCPConnection = redis.asyncio.Connection
SSLConnection = redis.asyncio.SSLConnection
RedisPool = redis.asyncio.ConnectionPool
"""What any pool of redis-py is an instance of."""

sleep = asyncio.sleep


class Places:
    """So many may go on at once; the others wait, first come, first served."""

    def __init__(self, places: int) -> None:
        self._free = asyncio.Semaphore(places)
        self._taken: set[Place] = set()

    async def take(self, place: Place, seconds: float | None) -> bool:
        """Wait until the place can be had, at most so long; return whether it was."""
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except builtins.TimeoutError:
            return False
        self._taken.add(place)
        return True

    def give(self, place: Place) -> None:
        """Give the place back, if it was had."""
        if place in self._taken:
            self._taken.remove(place)
            self._free.release()


_unfinished: set[asyncio.Future[None]] = set()


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Carry something out though the caller is being cancelled."""
    task = asyncio.ensure_future(coroutine)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)


async def take_connection(pool: RedisPool) -> Connection:
    """Return a connection of a pool of redis-py."""
    try:
        connection: Connection = await pool.get_connection()
    except asyncio.CancelledError:
        # Before Python 3.13 a condition forgets the waiter whom it has just woken.
        _finish(_wake_another(pool))
        raise
    return connection


async def _wake_another(pool: RedisPool) -> None:
    condition: asyncio.Condition | None = getattr(pool, "_condition", None)
    if condition is not None:
        async with condition:
            condition.notify()


async def give_connection(pool: RedisPool, connection: Connection) -> None:
    """Give a connection back, also if the caller is cancelled while the pool is locked."""
    try:
        await pool.release(connection)
    except asyncio.CancelledError:
        # Waiting for the lock, redis-py had not taken it back yet and never would.
        if connection in pool._in_use_connections:  # noqa: SLF001 - it does not tell otherwise
            _finish(pool.release(connection))
        raise


class Job:
    """Something that is carried to its end, also when nobody waits for it any more."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def finished(self, seconds: float | None) -> bool:
        """Wait until it is finished, at most so long; return whether it is."""
        done, _ = await asyncio.wait({self._task}, timeout=seconds)
        return bool(done)

    def result(self) -> None:
        """Raise what made it fail."""
        if self._task.cancelled():
            raise PoolClosedError("the stream was closed while this call was reading")
        self._task.result()

    async def cancel(self) -> None:
        """End it, and wait until it has ended."""
        self._task.cancel()
        await asyncio.wait({self._task})


def start(function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> Job:
    """Start a job."""
    task = asyncio.ensure_future(function(*args))
    task.add_done_callback(_look_at)
    return Job(task)


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of a failure: whoever comes next looks at it, and asyncio need not warn."""
    if not task.cancelled():
        task.exception()


async def read_reply(connection: Connection, seconds: float) -> Any:
    """Return the next reply, an error reply too, as bytes; wait at most so long.

    redis-py's own deadline answers None when it passes, as an empty read does.
    """
    try:
        async with asyncio.timeout(seconds):
            return await connection.read_response(disable_decoding=True, timeout=math.inf)
    except redis.exceptions.ResponseError as error:
        return error
