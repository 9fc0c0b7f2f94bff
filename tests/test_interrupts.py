"""KeyboardInterrupt in the blocking flavour, at every moment: nothing is stranded."""

import itertools
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import attrs
import pytest

import step_redis
from servers import wait_until
from step_redis._backend import threads
from step_redis._sync import outbox
from step_redis.deadline import now
from step_redis.sync import StepRedisPool, StepRedisStream

# An interrupt within redis-py's connect leaves a socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OURS = str(Path(step_redis.__file__).parent)


def is_inside(function: str, frame: FrameType | None) -> bool:
    """Whether a function of ours is running: its last instruction counts, its caller does not."""
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_code.co_filename.startswith(OURS):
            return True
        frame = frame.f_back
    return False


@pytest.fixture
def stream(params: step_redis.StepRedisPoolParams) -> Iterator[StepRedisStream]:
    # An interrupt within redis-py's pool can cost it a connection for good.
    roomy = attrs.evolve(params, max_connections=1000, max_read_connections=1000)
    with StepRedisPool(roomy) as pool, StepRedisStream(pool) as stream:
        yield stream


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Send Ctrl-C to the main thread at random moments; it strikes inside `receive_message`."""
    struck = 0

    def handler(_: int, frame: FrameType | None) -> None:
        nonlocal struck
        if is_inside("receive_message", frame):
            struck += 1
            raise KeyboardInterrupt

    main, over, dice = threading.main_thread().ident, threading.Event(), random.Random(1)

    def strike() -> None:
        while not over.wait(dice.random() * 0.006):
            signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    striker = threading.Thread(target=strike)
    striker.start()
    try:
        yield lambda: struck
    finally:
        over.set()
        striker.join()
        signal.signal(signal.SIGINT, before)


def test_interrupted_300_times(stream, key, redis):
    """Ctrl-C 300 times while messages arrive: all come, once, with a delivery count of 1."""
    stream.create_input_stream(key, "g")
    enough, sent = threading.Event(), 0

    def publish() -> None:
        nonlocal sent
        while not enough.wait(0.001):
            redis.xadd(key, {"n": sent})
            sent += 1

    publisher = threading.Thread(target=publish)
    publisher.start()
    got: list[Any] = []
    with interrupts() as struck:
        while struck() < 300:
            try:
                messages = stream.receive_message(key, "g", "c", 500, 3)
            except KeyboardInterrupt:
                continue
            got += messages
    enough.set()
    publisher.join()
    while messages := stream.receive_message(key, "g", "c", 1500, 100):
        got += messages
    assert sorted(int(message["data"]["n"]) for message in got) == list(range(sent))
    assert {message["delivery_count"] for message in got} == {1}


class Bomb:
    """Raises KeyboardInterrupt before the n-th line that runs within a call."""

    def __init__(self, lines: int) -> None:
        self.left = lines

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        path = frame.f_code.co_filename
        ours = path.startswith(OURS)
        talks = path.endswith("redis/connection.py") or "/redis/_parsers/" in path
        if not (ours or talks) or not is_inside("receive_message", frame):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("wait_ms", [0, 50])
def test_interrupted_at_every_line(params, key, redis, wait_ms):
    """Wherever the interrupt strikes, the message comes with this call or the next, once."""
    for n in range(1, 2000):
        # All anew for each: what one interrupt leaves must not lead the next astray.
        name = f"{key}:{n}"
        redis.xgroup_create(name, "g", "0", mkstream=True)
        with StepRedisPool(params) as pool, StepRedisStream(pool) as stream:
            redis.xadd(name, {"n": 1})
            got: list[Any] = []
            bomb, before = Bomb(n), sys.gettrace()
            sys.settrace(bomb)
            try:
                got = stream.receive_message(name, "g", "c", wait_ms)
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)  # coverage's
            redis.xadd(name, {"n": 2})
            while len(got) < 2:
                more = stream.receive_message(name, "g", "c", 3000)
                assert more, f"line {n}"
                got += more
            assert [message["data"]["n"] for message in got] == ["1", "2"], f"line {n}"
            assert {message["delivery_count"] for message in got} == {1}
            assert stream.receive_message(name, "g", "c") == []
        redis.delete(name)
        if bomb.left > 0:
            break
    assert bomb.left > 0, "the call has more lines than were tried"
    assert n > 100


@pytest.mark.parametrize("step", ["Batch", "islice", "batch", "read_ids", "Slot", "Counted.add"])
def test_interrupted_while_sending_for_others(params, key, redis, monkeypatch, step):
    """Whatever it strikes of sending what others publish: they get their ids, each once."""
    owner, name = (outbox.Counted, "add") if step == "Counted.add" else (outbox, step)
    real, struck, confirmed, over = getattr(owner, name), [], [], threading.Event()

    def strike(*args: Any) -> Any:
        is_before = step == "Counted.add"
        result = None if is_before else real(*args)
        is_alone = step == "read_ids" and len(result[0]) == 1
        is_place = is_before and not isinstance(args[1], outbox.Slot)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and not is_alone and not is_place and len(struck) < 20:
            struck.append(step)
            raise KeyboardInterrupt
        return real(*args) if is_before else result

    def publish(name: str) -> None:
        for n in itertools.count():
            if over.is_set():
                return
            confirmed.append((stream.publish_message(key, {"n": f"{name}:{n}"}), f"{name}:{n}"))

    with StepRedisPool(params) as pool, StepRedisStream(pool) as stream:
        others = [threading.Thread(target=publish, args=(f"t{at}",)) for at in range(6)]
        monkeypatch.setattr(owner, name, strike)
        for thread in others:
            thread.start()
        deadline = now() + 30
        while len(struck) < 20 and now() < deadline:
            with suppress(KeyboardInterrupt):
                stream.publish_message(key, {"n": "main"})
        over.set()
        for thread in others:
            thread.join(20)
        assert not [thread for thread in others if thread.is_alive()]
    entries = {id_.decode(): fields[b"n"].decode() for id_, fields in redis.xrange(key)}
    assert all(entries[id_] == n for id_, n in confirmed)
    written = [n for n in entries.values() if n != "main"]
    assert len(written) == len(set(written)) == len(confirmed)
    assert len(struck) == 20


class SlowToWait:
    """A guard after which one thread, by its name, is preempted until told to go on."""

    def __init__(self, guard: Any, name: str) -> None:
        self._guard, self._name = guard, name
        self.is_there, self.go_on = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self._guard.acquire()

    def __exit__(self, *_: object) -> None:
        self._guard.release()
        if threading.current_thread().name == self._name and not self.is_there.is_set():
            self.is_there.set()
            self.go_on.wait()


def test_who_sees_its_id_without_having_waited_wakes_the_next(params, key, proxy, monkeypatch):
    """A thread is preempted before it waits; those behind it do not wait until that ends itself."""
    monkeypatch.setattr(threads, "_SIGNAL_SECONDS", 100)
    monkeypatch.setattr(threads, "batches_at_once", lambda _: 1)
    through = attrs.evolve(params, host=proxy.host, port=proxy.port)
    with StepRedisPool(through) as pool, StepRedisStream(pool) as stream:
        stream.publish_message(key, {"n": "first"})
        box = stream._outboxes.of((key, ()))
        guard = box._guard = SlowToWait(box._guard, "slow")
        proxy.hold_requests(b"EVALSHA", times=1)
        callers = []
        for waiting, name in enumerate(["alone", "sends", "slow", "behind", "last"]):
            arguments = (key, {"n": name})
            caller = threading.Thread(target=stream.publish_message, args=arguments, name=name)
            callers.append(caller)
            caller.start()
            wait_until(lambda: proxy.held_requests)
            wait_until(lambda waiting=waiting: len(box._queue.waiting) == waiting)
        assert guard.is_there.wait(10)
        proxy.release_requests()
        wait_until(lambda: not box._queue.sent and not box._queue.waiting)
        guard.go_on.set()
        for caller in callers:
            caller.join(20)
        assert not [caller.name for caller in callers if caller.is_alive()]
