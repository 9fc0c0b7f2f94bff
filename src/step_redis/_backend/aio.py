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

Connection = redis.asyncio.connection.AbstractConnection
TCPConnection = redis.asyncio.Connection
SSLConnection = redis.asyncio.SSLConnection
RedisPool = redis.asyncio.ConnectionPool
"""What any pool of redis-py is an instance of."""

sleep = asyncio.sleep


class ConnectionPool(redis.asyncio.BlockingConnectionPool):
    """redis-py's pool, without the trap that a cancelled release loses the connection."""

    async def release(self, connection: Connection) -> None:
        """Take a connection back, also if the caller is cancelled while the pool is locked."""
        try:
            await super().release(connection)
        except asyncio.CancelledError:
            # Waiting for the lock, redis-py had not taken it back yet and never would.
            if connection in self._in_use_connections:
                task = asyncio.ensure_future(super().release(connection))
                _unfinished.add(task)
                task.add_done_callback(_unfinished.discard)
            raise


_unfinished: set[asyncio.Task[None]] = set()


class Turn:
    """Who holds it may go on; the others wait, first come, first served."""

    def __init__(self) -> None:
        self._lock: asyncio.Lock | asyncio.Semaphore = asyncio.Lock()

    async def take(self, seconds: float | None) -> bool:
        """Wait for the turn, at most so long; return whether it was had."""
        try:
            async with asyncio.timeout(seconds):
                return await self._lock.acquire()
        except builtins.TimeoutError:
            return False

    def give(self) -> None:
        """Let the next one go on."""
        self._lock.release()


class Places(Turn):
    """A turn that so many may hold at once."""

    def __init__(self, places: int) -> None:
        self._lock = asyncio.Semaphore(places)


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
