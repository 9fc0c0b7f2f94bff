"""One test body for both flavours: blocking objects that can be awaited."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import _GeneratorContextManager
from functools import partial
from types import ModuleType
from typing import Any, Self

import redis
import redis.asyncio

import step_redis
import step_redis.sync
from step_redis._backend import aio, threads

THREADS = 128
_END = object()


class Threads:
    """Runs blocking calls for coroutines, each in a thread of its own.

    A cancelled caller stops waiting, but nothing stops the thread: its call goes on to its end.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="test")
        self._calls: dict[Future[Any], str] = {}

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = self._executor.submit(function, *args, **kwargs)
        self._calls[call] = getattr(function, "__qualname__", repr(function))
        call.add_done_callback(lambda call: self._calls.pop(call, None))
        return await asyncio.wrap_future(call)

    def close(self, timeout: float = 10.0) -> None:
        """Wait for calls that a cancelled caller left behind; fail if they do not end."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        left = [self._calls.get(call) for call in wait(list(self._calls), timeout).not_done]
        assert not left, f"blocking calls still running {timeout} s after the test: {left}"
        self._executor.shutdown()


class Adapter:
    """A blocking object with the shape of its asyncio twin.

    What the twin awaits runs in a thread; other calls run in place; what is not callable passes
    through. Adapters among the arguments are unwrapped, coroutine functions among them (handlers)
    become functions that run them on the test's loop and wait, and results that differ between
    the flavours are adapted as well. Without a twin, every call runs in a thread.
    """

    def __init__(self, threads: Threads, blocking: Any, twins: Any = None) -> None:
        self._threads, self._blocking, self._twins = threads, blocking, twins

    def __repr__(self) -> str:
        return f"Adapter({self._blocking!r})"

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._blocking, "close" if name == "aclose" else name)
        if not callable(function):
            return self._adapt(function)
        twin = getattr(_twin(self._twins, self._blocking), name, None)
        if twin is None or inspect.iscoroutinefunction(twin):
            return partial(self._call_in_thread, function)
        return partial(self._call_in_place, function)

    async def __aenter__(self) -> Any:
        return await self._call_in_thread(self._blocking.__enter__)

    async def __aexit__(self, *exc_info: object) -> Any:
        return await self._call_in_thread(self._blocking.__exit__, *exc_info)

    def __aiter__(self) -> Self:
        return type(self)(self._threads, iter(self._blocking), self._twins)

    async def __anext__(self) -> Any:
        item = await self._call_in_thread(next, self._blocking, _END)
        if item is _END:
            raise StopAsyncIteration
        return item

    async def _call_in_thread(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        args, kw = self._strip(args, kw)
        return self._adapt(await self._threads.run(function, *args, **kw))

    def _call_in_place(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        args, kw = self._strip(args, kw)
        return self._adapt(function(*args, **kw))

    def _strip(self, args: Any, kw: Any) -> tuple[Any, Any]:
        def strip(value: Any) -> Any:
            if isinstance(value, Adapter):
                return value._blocking
            if not inspect.iscoroutinefunction(value):
                return value
            loop = asyncio.get_running_loop()

            def handler(*args: Any) -> Any:
                coroutine = value(*map(self._adapt, args))
                return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

            return handler

        return [strip(value) for value in args], {name: strip(kw[name]) for name in kw}

    def _adapt(self, value: Any) -> Any:
        if value is self._blocking:
            return self
        twin = _twin(self._twins, value)
        # What generators and @contextmanager make has no exported class, but awaited twins.
        anonymous = isinstance(value, (Generator, _GeneratorContextManager))
        if twin is type(value) or (twin is None and not anonymous):
            return value
        return type(self)(self._threads, value, self._twins)


def _twin(twins: Any, value: Any) -> Any:
    return getattr(twins, type(value).__name__, None)


class Flavour:
    """Makes the objects under test, of one flavour; tests use both as if they were asyncio's.

    What is true of one flavour only (cancelling, say) is tested with
    `@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        blocking = name == "threads"
        self.api: ModuleType = step_redis.sync if blocking else step_redis
        self.redis: ModuleType = redis if blocking else redis.asyncio
        self.backend: ModuleType = threads if blocking else aio
        self._threads = Threads() if blocking else None

    def make(self, class_name: str, *args: Any, **options: Any) -> Any:
        """Make an object of the API by the name of its class."""
        constructor = getattr(self.api, class_name)
        if self._threads is None:
            return constructor(*args, **options)
        return Adapter(self._threads, self.api, step_redis)._call_in_place(
            constructor, *args, **options
        )

    def pool(self, params: step_redis.StepRedisPoolParams, **options: Any) -> Any:
        return self.make("StepRedisPool", params, **options)

    def stream(self, pool: Any, logger: logging.Logger | None = None, **options: Any) -> Any:
        return self.make("StepRedisStream", pool, logger, **options)

    def consumer(
        self,
        pool: Any,
        streams: Any,
        group: str = "g",
        *,
        logger: logging.Logger | None = None,
        default: Callable[[Any], Any] | None = None,
        foreign: str = "str",
        **options: Any,
    ) -> Any:
        """Make a consumer; what is not its own parameter is one of `ConsumerOptions`.

        A test that fails leaves its handlers hanging, which are not to be waited for too long.
        """
        made = step_redis.ConsumerOptions(**{"grace_seconds": 3} | options)
        kept = {"logger": logger, "default": default, "foreign": foreign}
        return self.make("StepRedisConsumer", pool, streams, group, options=made, **kept)

    def adapt(self, made: Any) -> Any:
        """Let all calls of another object of this flavour be awaited: a client of `redis`, say."""
        return made if self._threads is None else Adapter(self._threads, made)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.close()
