"""What differs for blocking code: waiting, taking turns, jobs, workers, and redis-py's classes."""

import _thread
import inspect
import os
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

import redis
import redis.exceptions

from step_redis.arguments import HandlerKindError
from step_redis.commands import Command, packed
from step_redis.deadline import Deadline, now
from step_redis.errors import ConfigurationError
from step_redis.place import Counted, Place

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

Connection = redis.Connection
RedisPool = redis.ConnectionPool
"""What any pool of redis-py is an instance of."""

Handler: TypeAlias = Callable[[M], object]
"""What handles a message."""

sleep = time.sleep


def batches_at_once(seconds: float) -> int:
    """Return how many batches are best on their way, if the last call took so long.

    Where the server is near, two would only take the GIL from each other.
    """
    return 1 if seconds < _NEAR_SECONDS else 2


def give_way() -> None:
    """Do nothing: threads take turns by themselves."""


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
        self._begin()

    def _begin(self) -> None:
        self._taken: Counted[Place] = Counted()
        self._waiting: deque[weakref.ref[Place]] = deque()
        # Taken by itself, it is C code, which a KeyboardInterrupt does not leave locked.
        self._guard = _thread.RLock()
        self._changed = threading.Condition(self._guard)
        self._process = os.getpid()

    def take(self, place: Place, seconds: float | None) -> bool:
        """Wait until the place can be had, at most so long; return whether it was."""
        if self._process != os.getpid():
            # After a fork the threads that had places, or the lock, are not here.
            self._begin()
        with self._guard:
            if not self._waiting and len(self._taken.refs) < self._places:
                self._taken.add(place)
                return True
            deadline = Deadline.after(seconds)
            mine = weakref.ref(place)
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
        return self._waiting[0] is mine and len(self._taken.refs) < self._places

    def give(self, place: Place) -> None:
        """Give the place back, if it was had."""
        with self._guard:
            self._taken.discard(place)
            if self._waiting:
                self._changed.notify_all()


class ConnectionPool(redis.BlockingConnectionPool):
    """redis-py's pool, with a connection at hand that goes from call to call.

    Giving it back and lending it costs redis-py as much as all that a call does else. It stays lent
    meanwhile, and whoever asks gets it first, so that nobody ever waits for it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # No lock: a KeyboardInterrupt could leave it locked. Each step on these is one.
        self._asking: Counted[Place] = Counted()
        self._at_hand: deque[Connection] = deque()
        self._process = os.getpid()
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # redis-py's

    def get_connection(self, *args: Any, **kwargs: Any) -> Connection:
        """Lend a connection that works."""
        if self._process != os.getpid():
            # After a fork the connection and the other threads are the parent's.
            self._at_hand.clear()
            self._asking.refs.clear()
            self._process = os.getpid()
        asking = Place()
        self._asking.add(asking)
        connection = None
        if self._at_hand:
            # Another thread may be quicker.
            with suppress(IndexError):
                connection = self._at_hand.pop()
        if connection is not None:
            if _is_usable(connection):
                return connection
            # Once at most, whatever strikes: it must not be lent twice.
            self.release(connection)  # type: ignore[no-untyped-call]  # redis-py's
        lent: Connection = super().get_connection(  # type: ignore[no-untyped-call]  # redis-py's
            *args, **kwargs
        )
        return lent

    def keep(self, connection: Connection) -> bool:
        """Have a connection at hand instead of taking it back; return whether that is done."""
        if self._at_hand or self._asking.refs or self._process != os.getpid():
            return False
        if not connection.is_connected or connection.should_reconnect():
            return False
        self._at_hand.append(connection)
        if not self._asking.refs:
            return True
        try:
            # Somebody asked meanwhile, and may not have seen it.
            self._at_hand.remove(connection)
        except ValueError:
            return True
        return False


def _is_usable(connection: Connection) -> bool:
    """Whether a connection is open, and nothing is left in it; it is closed otherwise."""
    try:
        if connection.is_connected and not connection.can_read():
            return True
    except redis.exceptions.ConnectionError:
        # It was closed meanwhile.
        pass
    connection.disconnect()
    return False


_NEAR_SECONDS = 0.0005

_LOOK_SECONDS = 0.1

_SIGNAL_SECONDS = 0.5


def take_connection(pool: RedisPool) -> Connection:
    """Return a connection of a pool of redis-py."""
    connection: Connection = pool.get_connection()
    return connection


def give_connection(pool: RedisPool, connection: Connection) -> None:
    """Give a connection back."""
    if not (isinstance(pool, ConnectionPool) and pool.keep(connection)):
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


def check_health(connection: Connection) -> None:
    """Ask a connection that was idle for long for a sign of life."""
    connection.check_health()


def send(connection: Connection, commands: Iterable[Command]) -> None:
    """Send commands."""
    connection.send_packed_command([packed(commands)], check_health=False)


def exchange(connection: Connection, commands: Sequence[Command], seconds: float) -> list[Any]:
    """Send commands and return their replies, error replies too; each may take so long."""
    send(connection, commands)
    replies: list[Any] = []
    # No comprehension: CPython 3.12 and 3.13 may skip `finally` for what strikes in one.
    for _ in commands:
        replies.append(read_reply(connection, seconds))  # noqa: PERF401
    return replies


def read_reply(connection: Connection, seconds: float) -> Any:
    """Return the next reply, an error reply too, as bytes; wait at most so long."""
    try:
        if seconds == connection.socket_timeout:
            return connection.read_response(disable_decoding=True)
        return connection.read_response(disable_decoding=True, timeout=seconds)
    except redis.exceptions.ResponseError as error:
        return error


Guard = _thread.RLock
"""Lets one at a time at a state that several share: a lock that its holder may take again.

It is C code, so that no KeyboardInterrupt strikes between taking and having it.
"""


class Signal:
    """Wakes those who wait for a guarded state to change; they hold the guard."""

    def __init__(self, guard: Guard) -> None:
        self._changed = threading.Condition(guard)

    def attach(self) -> None:
        """Do nothing: any thread can wake any other."""

    def wait(self, seconds: float | None) -> None:
        """Leave the guard until woken, at most so long; it may also end by itself.

        CPython runs signal handlers in the main thread, and may fail to wake it for one that
        another thread received. And a handler that strikes just before the wait wakes nobody.
        """
        self._changed.wait(_SIGNAL_SECONDS if seconds is None else seconds)

    def wake_one(self) -> None:
        """Wake one of them."""
        self._changed.notify()

    def wake(self) -> None:
        """Wake all."""
        self._changed.notify_all()

    def wake_from_anywhere(self) -> None:
        """Wake all, also from a signal handler or without the guard."""
        with self._changed:
            self._changed.notify_all()


class Ticket:
    """What one waits with, once, until another wakes it."""

    __slots__ = ("after", "lock")

    def __init__(self) -> None:
        self.lock = _thread.allocate_lock()
        self.lock.acquire()
        self.after: Ticket | None = None
        """Whom to wake next."""


def ticket() -> Ticket:
    """Return what to wait with."""
    return Ticket()


def woken(ticket: Ticket) -> None:
    """Wait until woken, also if that was before; it may also end by itself."""
    ticket.lock.acquire(timeout=_SIGNAL_SECONDS)


def wake(ticket: Ticket) -> None:
    """Wake the one who waits."""
    # Others may do so at the same time: to be woken twice is to be woken.
    with suppress(RuntimeError):
        ticket.lock.release()


def line_up(tickets: Sequence[Ticket]) -> None:
    """Let each of those who wait wake the one after it: woken at once, all would need the GIL.

    If one is interrupted just then, the others wait until their waiting ends by itself.
    """
    for ticket, after in pairwise(tickets):
        ticket.after = after


def wake_all(tickets: Sequence[Ticket]) -> None:
    """Wake the first of those who were lined up, and so all."""
    if tickets:
        wake(tickets[0])


def pass_on(ticket: Ticket) -> None:
    """Wake whoever is next: the one with this ticket does not wait with it any more."""
    after, ticket.after = ticket.after, None
    if after is not None:
        wake(after)


class Worker:
    """Something that goes on beside its maker, until it ends by itself."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def finished(self, seconds: float | None) -> bool:
        """Wait until it has ended, at most so long; return whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def cancel(self) -> bool:
        """Return False: a thread cannot be ended from outside."""
        return False


def start_worker(name: str, function: Callable[..., None], *args: Any) -> Worker:
    """Start a worker; its function handles its failures itself."""
    # A handler that hangs must not keep the program from ending.
    thread = threading.Thread(target=function, args=args, name=name, daemon=True)
    thread.start()
    return Worker(thread)


def is_being_cancelled() -> bool:
    """Return False: a thread cannot be told to end at once."""
    return False


class HandlingTime:
    """How long a message may be handled, and the handling of it."""

    def __init__(self, seconds: float | None) -> None:  # noqa: ARG002 - the twin cancels
        self.started_at = now()

    def handle(self, handler: Handler[M], message: M) -> None:
        """Call the handler; whoever watches the time gives up on it."""
        checked(handler(message))

    def extend(self) -> None:
        """Start the time anew."""
        self.started_at = now()


def checked(result: object) -> None:
    """Refuse what only the other flavour can wait for."""
    if result is not None and inspect.iscoroutine(result):
        result.close()
        raise HandlerKindError(
            "the handler is an async function, which step_redis.sync cannot await: use the"
            " asyncio flavour, or a plain function"
        )


def check_handler(handler: object) -> None:
    """Refuse what cannot handle messages in this flavour."""
    if not callable(handler):
        raise ConfigurationError(f"the handler must be a function; got {type(handler).__name__}")
    if inspect.iscoroutinefunction(handler):
        raise ConfigurationError(
            "the handler is an async function, which step_redis.sync cannot await: use the asyncio"
            " flavour, or a plain function"
        )


@contextmanager
def signals_call(function: Callable[[], None]) -> Iterator[None]:
    """Call a function at SIGINT and SIGTERM, instead of what they do otherwise."""
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            "signals can be handled in the main thread only: run the consumer there, or without"
            " signals=True"
        )
    before = {
        number: signal.signal(number, lambda *_: function())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
