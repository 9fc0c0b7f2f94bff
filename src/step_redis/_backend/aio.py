"""What differs for asyncio: waiting, taking turns, jobs, workers, and redis-py's classes."""

import asyncio
import builtins
import inspect
import math
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import CoroutineType
from typing import Any, Self, TypeAlias, TypeVar

import redis.asyncio
import redis.asyncio.connection
import redis.exceptions

from step_redis.arguments import HandlerKindError
from step_redis.commands import Command, packed
from step_redis.deadline import now
from step_redis.errors import ConfigurationError, HandlerTimeoutError, PoolClosedError
from step_redis.place import Place

__all__ = [
    "Connection",
    "ConnectionPool",
    "Guard",
    "Handler",
    "HandlingTime",
    "Job",
    "Places",
    "RedisPool",
    "SSLConnection",
    "Signal",
    "TCPConnection",
    "Ticket",
    "Worker",
    "batches_at_once",
    "check_handler",
    "check_health",
    "checked",
    "exchange",
    "give_connection",
    "give_way",
    "is_being_cancelled",
    "line_up",
    "pass_on",
    "read_reply",
    "send",
    "signals_call",
    "sleep",
    "start",
    "start_worker",
    "take_connection",
    "ticket",
    "wake",
    "wake_all",
    "woken",
]

M = TypeVar("M")

Connection = redis.asyncio.connection.AbstractConnection
TCPConnection = redis.asyncio.Connection
SSLConnection = redis.asyncio.SSLConnection
RedisPool = redis.asyncio.ConnectionPool
"""What any pool of redis-py is an instance of."""

Handler: TypeAlias = Callable[[M], Awaitable[object]]
"""What handles a message."""

sleep = asyncio.sleep


def batches_at_once(seconds: float) -> int:  # noqa: ARG001 - the twin depends on it
    """Return how many batches are best on their way, if the last call took so long.

    The server works on one while another is made.
    """
    return 2


async def give_way() -> None:
    """Let others go on."""
    await asyncio.sleep(0)


class Places:
    """So many may go on at once; the others wait, first come, first served."""

    def __init__(self, places: int) -> None:
        self._free = asyncio.Semaphore(places)
        self._taken: set[Place] = set()

    async def take(self, place: Place, seconds: float | None) -> bool:
        """Wait until the place can be had, at most so long; return whether it was."""
        if not self._free.locked():
            await self._free.acquire()
            self._taken.add(place)
            return True
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


class ConnectionPool(redis.asyncio.BlockingConnectionPool):
    """redis-py's pool, with a connection at hand that goes from call to call.

    Giving it back and lending it costs redis-py as much as all that a call does else. It stays lent
    meanwhile, and whoever asks gets it first, so that nobody ever waits for it.
    """

    _at_hand: Connection | None = None
    _asking = 0

    async def at_hand(self) -> Connection | None:
        """Lend the connection that is at hand, if there is one and it works."""
        connection, self._at_hand = self._at_hand, None
        if connection is not None:
            try:
                if connection.is_connected and not await connection.can_read():
                    return connection
                await connection.disconnect(nowait=True)
            except redis.exceptions.ConnectionError:
                # It was closed then.
                pass
            await give_connection(self, connection)
        return None

    async def get_connection(self, *args: Any, **kwargs: Any) -> Connection:
        """Lend a connection that works."""
        connection = await self.at_hand()
        if connection is not None:
            return connection
        self._asking += 1
        try:
            lent: Connection = await super().get_connection(  # type: ignore[no-untyped-call]  # redis-py's
                *args, **kwargs
            )
            return lent
        finally:
            self._asking -= 1

    def keep(self, connection: Connection) -> bool:
        """Have a connection at hand instead of taking it back; return whether that is possible."""
        if self._asking or self._at_hand is not None or not connection.is_connected:
            return False
        if connection.should_reconnect():
            return False
        self._at_hand = connection
        return True


_unfinished: set[asyncio.Future[None]] = set()


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Carry something out though the caller is being cancelled."""
    task = asyncio.ensure_future(coroutine)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)


async def take_connection(pool: RedisPool) -> Connection:
    """Return a connection of a pool of redis-py."""
    at_hand = await pool.at_hand() if isinstance(pool, ConnectionPool) else None
    if at_hand is not None:
        return at_hand
    cancels = _cancels()
    try:
        connection: Connection = await pool.get_connection()
    except asyncio.CancelledError:
        # Before Python 3.13 a condition forgets the waiter whom it has just woken.
        _finish(_wake_another(pool))
        raise
    if _cancels() > cancels:
        _finish(pool.release(connection))
        raise asyncio.CancelledError
    return connection


def _cancels() -> int:
    """Return how often the caller was cancelled: redis-py may swallow it.

    It uses `asyncio.wait_for`, which does that before Python 3.12 if it strikes when what is waited
    for has just ended.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def check_health(connection: Connection) -> None:
    """Ask a connection that was idle for long for a sign of life."""
    # For each call: most need nothing of what follows.
    is_due = asyncio.get_running_loop().time() > connection.next_health_check
    if not is_due or not connection.health_check_interval:
        return
    cancels = _cancels()
    await connection.check_health()
    if _cancels() > cancels:
        raise asyncio.CancelledError


async def send(connection: Connection, commands: Iterable[Command]) -> None:
    """Send commands."""
    cancels = _cancels()
    await connection.send_packed_command(packed(commands), check_health=False)
    if _cancels() > cancels:
        raise asyncio.CancelledError


async def exchange(
    connection: Connection, commands: Sequence[Command], seconds: float
) -> list[Any]:
    """Send commands and return their replies, error replies too; each may take so long."""
    replies: list[Any] = []
    # One deadline for all that it takes: redis-py's own make a task of each sending, and swallow
    # cancels.
    limit, connection.socket_timeout = connection.socket_timeout, None
    try:
        async with asyncio.timeout(seconds) as deadline:
            await connection.send_packed_command(packed(commands), check_health=False)
            for _ in commands:
                if replies:
                    deadline.reschedule(asyncio.get_running_loop().time() + seconds)
                replies.append(await _reply(connection))
    finally:
        connection.socket_timeout = limit
    return replies


async def _wake_another(pool: RedisPool) -> None:
    condition: asyncio.Condition | None = getattr(pool, "_condition", None)
    if condition is not None:
        async with condition:
            condition.notify()


async def give_connection(pool: RedisPool, connection: Connection) -> None:
    """Give a connection back, also if the caller is cancelled while the pool is locked."""
    if isinstance(pool, ConnectionPool) and pool.keep(connection):
        return
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
    # The loop itself forgets a task for which nobody waits.
    _unfinished.add(task)
    task.add_done_callback(_look_at)
    return Job(task)


def _look_at(task: asyncio.Task[None]) -> None:
    """Take note of a failure: whoever comes next looks at it, and asyncio need not warn."""
    _unfinished.discard(task)
    if not task.cancelled():
        task.exception()


async def read_reply(connection: Connection, seconds: float) -> Any:
    """Return the next reply, an error reply too, as bytes; wait at most so long.

    redis-py's own deadline answers None when it passes, as an empty read does.
    """
    async with asyncio.timeout(seconds):
        return await _reply(connection)


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True, timeout=math.inf)
    except redis.exceptions.ResponseError as error:
        return error


class Guard:
    """Lets one at a time at a state that several share: tasks take turns by themselves."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


class Signal:
    """Wakes those who wait for a guarded state to change; they hold the guard."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    def attach(self) -> None:
        """Take note of where it is waited for, so that it can be woken from anywhere."""
        self._loop = asyncio.get_running_loop()

    async def wait(self, seconds: float | None) -> None:
        """Leave the guard until woken, at most so long; it may also end by itself."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            if seconds is None:
                await future
            else:
                async with asyncio.timeout(seconds):
                    await future
        except builtins.TimeoutError:
            return
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                # Whoever woke this one alone meant somebody who goes on.
                self.wake_one()
            raise
        finally:
            # Whoever wakes takes futures out first.
            if future in self._waiting:
                self._waiting.remove(future)

    def wake_one(self) -> None:
        """Wake one of them."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    def wake(self) -> None:
        """Wake all."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def wake_from_anywhere(self) -> None:
        """Wake all, also from another thread or a signal handler; it must be attached."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.wake)


Ticket: TypeAlias = asyncio.Future[None]
"""What one waits with, once, until another wakes it."""


def ticket() -> Ticket:
    """Return what to wait with."""
    return asyncio.Future()


def woken(ticket: Ticket) -> Awaitable[None]:
    """Wait until woken, also if that was before; it may also end by itself."""
    return ticket


def wake(ticket: Ticket) -> None:
    """Wake the one who waits."""
    if not ticket.done():
        ticket.set_result(None)


def line_up(tickets: Sequence[Ticket]) -> None:
    """Do nothing: `wake_all` wakes all."""


def wake_all(tickets: Sequence[Ticket]) -> None:
    """Wake several."""
    for ticket in tickets:
        wake(ticket)


def pass_on(ticket: Ticket) -> None:
    """Do nothing: nobody is woken by another."""


class Worker:
    """Something that goes on beside its maker, until it ends by itself or is cancelled."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def finished(self, seconds: float | None) -> bool:
        """Wait until it has ended, at most so long; return whether it has."""
        if not self._task.done():
            await asyncio.wait({self._task}, timeout=seconds)
        return self._task.done()

    def cancel(self) -> bool:
        """Ask it to end at once; return whether that can help."""
        return self._task.cancel()


def start_worker(
    name: str, function: Callable[..., Coroutine[Any, Any, None]], *args: Any
) -> Worker:
    """Start a worker; its function handles its failures itself."""
    return Worker(asyncio.create_task(function(*args), name=name))


def is_being_cancelled() -> bool:
    """Whether whoever asks was told to end at once."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class HandlingTime:
    """How long a message may be handled, and the handling of it."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout: asyncio.Timeout | None = None
        self.started_at = now()

    async def handle(self, handler: Handler[M], message: M) -> None:
        """Call the handler, which is cancelled when the time is over."""
        if self._seconds is None:
            await _awaitable(handler(message))
            return
        try:
            async with asyncio.timeout(self._seconds) as self._timeout:
                await _awaitable(handler(message))
        except builtins.TimeoutError:
            if self._timeout is None or not self._timeout.expired():
                raise
            raise HandlerTimeoutError(
                f"the handler took longer than {self._seconds:g} s (handler_timeout_seconds)"
            ) from None

    def extend(self) -> None:
        """Start the time anew."""
        self.started_at = now()
        if self._timeout is not None and self._seconds is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)


def checked(result: Awaitable[object]) -> Awaitable[object]:
    """Return what a handler returned, which is to be awaited."""
    return result if type(result) is CoroutineType else _awaitable(result)


def _awaitable(result: Awaitable[object]) -> Awaitable[object]:
    if not inspect.isawaitable(result):
        raise HandlerKindError(
            "the handler returned something that cannot be awaited: it must be an async function;"
            " for blocking handlers there is step_redis.sync"
        )
    return result


def check_handler(handler: object) -> None:
    """Refuse what cannot handle messages in this flavour."""
    kind = type(handler).__name__
    if not callable(handler):
        raise ConfigurationError(f"the handler must be an async function; got {kind}")
    # Other callables may return something that can be awaited all the same.
    if kind in ("function", "method") and not inspect.iscoroutinefunction(handler):
        raise ConfigurationError(
            "the handler must be an async function; for blocking handlers there is step_redis.sync"
        )


@contextmanager
def signals_call(function: Callable[[], None]) -> Iterator[None]:
    """Call a function at SIGINT and SIGTERM, instead of what they do otherwise."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            loop.add_signal_handler(number, function)
    except (ValueError, RuntimeError):
        raise ConfigurationError(
            "signals can be handled in the main thread only: run the consumer there, or without"
            " signals=True"
        ) from None
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
