"""Stopping: what is handled is finished, the rest is handed back, nothing is left behind."""

import asyncio
import logging
import signal
import threading
import time

import attrs
import pytest

from consuming import (
    PARKED,
    Recorder,
    counted,
    holders,
    is_settled,
    members,
    pending,
    process,
    running,
)
from step_redis import ConfigurationError, LeaseLost


async def test_stop_from_a_handler(flavour, pool, key, redis, publish):
    """The handler that stops it is finished and its message acknowledged; no other is begun."""
    ids = await publish(5)
    consumer = flavour.consumer(pool, key)

    async def stop(message):
        consumer.stop()

    handled = Recorder(stop)
    async with consumer:
        await asyncio.wait_for(consumer.run(handled.handle), 5)
        # The group is left when run returns, not only when the consumer is closed.
        assert holders(redis, key).keys() == {PARKED}
        assert set(redis.zrange(f"{{{key}}}.leases:g", 0, -1)) <= {b"~sweep"}
    assert handled.ids == ids[:1]


async def test_stop_from_another_thread(flavour, pool, key, redis, until):
    """Stop may be called from any thread, while nothing happens at all."""
    consumer = flavour.consumer(pool, key)
    async with consumer:
        task = asyncio.ensure_future(consumer.run(Recorder().handle))
        await until(lambda: members(redis, key))
        plain = getattr(consumer, "_blocking", consumer)
        thread = threading.Thread(target=plain.stop)
        thread.start()
        await asyncio.wait_for(task, 3)
        thread.join()


async def test_stop_before_run(flavour, pool, key, redis, publish):
    """A consumer that was stopped before handles nothing."""
    await publish(3)
    handled = Recorder()
    async with flavour.consumer(pool, key) as consumer:
        consumer.stop()
        await asyncio.wait_for(consumer.run(handled.handle), 5)
    assert handled.ids == []
    assert members(redis, key) == set()


async def test_what_was_held_comes_elsewhere_within_a_second(
    flavour, pool, key, redis, publish, until, release
):
    """Others get what was held ready, as if it had never been delivered."""
    ids = await publish(4)
    slow, other = Recorder(lambda _: release.wait()), Recorder()
    consumer = flavour.consumer(pool, key, concurrency=2)
    async with consumer:
        task = asyncio.ensure_future(consumer.run(slow.handle))
        await until(lambda: len(slow.ids) == 2 and pending(redis, key) == 4)
        async with running(flavour.consumer(pool, key), other.handle):
            await until(lambda: len(members(redis, key)) == 2)
            stopped = time.monotonic()
            consumer.stop()
            await until(lambda: len(other.ids) == 2)
            assert max(other.times) - stopped < 1.2
            assert not task.done()
            release.set()
            await task
            assert (await consumer.health()).counters.handed_back == 2
    assert sorted(other.ids) == sorted(ids[2:])
    assert other.counts == [1] * 2
    assert pending(redis, key) == 0


async def test_what_arrives_while_stopping(flavour, pool, key, redis, publish, until, release):
    """A read that was under way takes messages after stop: they are handed back, too."""
    slow, other = Recorder(lambda _: release.wait()), Recorder()
    [first] = await publish()
    consumer = flavour.consumer(pool, key)
    async with consumer:
        task = asyncio.ensure_future(consumer.run(slow.handle))
        await until(lambda: slow.ids)
        consumer.stop()
        ids = await publish(5)
        async with running(flavour.consumer(pool, key), other.handle):
            await until(lambda: len(other.ids) == 5, timeout=3)
            release.set()
            await task
    assert slow.ids == [first]
    assert sorted(other.ids) == sorted(ids)
    assert other.counts == [1] * 5


async def test_grace(flavour, pool, key, redis, publish, until, release):
    """A handler is given its grace, and its lease is kept meanwhile."""
    await publish()
    handled, other = Recorder(lambda _: release.wait()), Recorder()
    consumer = flavour.consumer(pool, key, lease_seconds=1, grace_seconds=20)
    async with consumer:
        task = asyncio.ensure_future(consumer.run(handled.handle))
        await until(lambda: handled.ids)
        consumer.stop()
        async with running(flavour.consumer(pool, key, lease_seconds=1), other.handle):
            await asyncio.sleep(2.5)
            assert not task.done()
            release.set()
            await task
    assert other.ids == []
    assert pending(redis, key) == 0


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "does not end"])
async def test_after_the_grace(flavour, pool, key, redis, publish, until, caplog, ends, release):
    """A handler that goes on after its grace is ended or left behind; its message comes again."""
    await publish()
    settled = []

    async def hang(message):
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                if ends:
                    raise
        try:
            await message.ack()
        except LeaseLost as error:
            settled.append(error)

    handled = Recorder(hang)
    consumer = flavour.consumer(pool, key, grace_seconds=0.3)
    async with consumer:
        task = asyncio.ensure_future(consumer.run(handled.handle))
        await until(lambda: handled.ids)
        started = time.monotonic()
        consumer.stop()
        await task
        assert time.monotonic() - started < 4
    assert holders(redis, key) == {PARKED: 1}
    is_cancelled = ends and flavour.name == "asyncio"
    assert ("did not end in time" in caplog.text) is not is_cancelled
    release.set()
    await until(lambda: is_cancelled or settled)
    other = Recorder()
    async with running(flavour.consumer(pool, key), other.handle):
        await until(is_settled(redis, key))
    # The first delivery was begun, so it counts as lost.
    assert other.counts == [2]


async def test_closing_stops(flavour, pool, key, redis, publish, until, release):
    """Aclose from elsewhere ends run as stop does, and returns when all is handed back."""
    await publish(2)
    handled = Recorder(lambda _: release.wait())
    consumer = flavour.consumer(pool, key)
    task = asyncio.ensure_future(consumer.run(handled.handle))
    await until(lambda: handled.ids)
    closing = asyncio.ensure_future(consumer.aclose())
    await until(lambda: holders(redis, key)[PARKED] == 1)
    assert not closing.done()
    release.set()
    await closing
    await task
    assert holders(redis, key) == {PARKED: 1}


async def test_with_a_handler_timeout_stopping_takes_no_longer(
    flavour, pool, key, redis, publish, until
):
    """What watches over handlers ends with them."""
    await publish()
    handled = Recorder()
    consumer = flavour.consumer(pool, key, handler_timeout_seconds=60)
    async with consumer:
        task = asyncio.ensure_future(consumer.run(handled.handle))
        await until(is_settled(redis, key))
        started = time.monotonic()
        consumer.stop()
        await task
        assert time.monotonic() - started < 2.5


async def test_stopping_leaves_nothing_running(flavour, pool, key, redis, publish, until):
    """No thread and no task of the consumer outlives it."""
    await publish(5)
    handled = Recorder()
    consumer = flavour.consumer(pool, key, concurrency=3, handler_timeout_seconds=60)
    async with running(consumer, handled.handle):
        await until(is_settled(redis, key))

    def left():
        names = [thread.name for thread in threading.enumerate()]
        names += [task.get_name() for task in asyncio.all_tasks()]
        return [name for name in names if consumer.name in name]

    await until(lambda: not left(), timeout=2)


@pytest.mark.parametrize("how", ["cut off", "hangs"])
async def test_stopping_while_the_server_is_away(
    flavour, params, proxy, key, redis, publish, until, caplog, how, release
):
    """It ends in bounded time, and says that its messages come again when the lease ends."""
    await publish(4)
    caplog.set_level(logging.WARNING)
    handled = Recorder(lambda _: release.wait())
    through = attrs.evolve(
        params, host=proxy.host, port=proxy.port, socket_timeout=2, socket_connect_timeout=2
    )
    async with flavour.pool(through) as pool:
        consumer = flavour.consumer(pool, key, grace_seconds=1, lease_seconds=3, concurrency=2)
        task = asyncio.ensure_future(consumer.run(handled.handle))
        await until(lambda: pending(redis, key) == 4 and len(handled.ids) == 2)
        if how == "cut off":
            proxy.refuse()
            proxy.cut()
        else:
            proxy.hold_replies()
        started = time.monotonic()
        consumer.stop()
        release.set()
        await asyncio.wait_for(task, 30)
        assert time.monotonic() - started < 20
        await consumer.aclose()
        proxy.heal()
    other = Recorder()
    async with flavour.pool(params) as pool, running(flavour.consumer(pool, key), other.handle):
        await until(is_settled(redis, key), timeout=20)
    assert set(handled.ids + other.ids) == {entry.decode() for entry, _ in redis.xrange(key)}


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_cancelling_run(flavour, pool, key, redis, publish, until):
    """A cancelled run cancels its handlers, hands all back and leaves the group."""
    await publish(4)
    ended = []

    async def hang(message):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(message.id)

    handled = Recorder(hang)
    consumer = flavour.consumer(pool, key, concurrency=2)
    task = asyncio.ensure_future(consumer.run(handled.handle))
    await until(lambda: len(handled.ids) == 2 and pending(redis, key) == 4)
    started = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 2.5
    assert sorted(ended) == sorted(handled.ids)
    assert holders(redis, key) == {PARKED: 4}


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
@pytest.mark.parametrize("pause", [0, 0.05, 0.3])
async def test_cancelling_run_twice(flavour, pool, key, redis, publish, until, pause):
    """A second cancellation ends it at once; no lease is kept for what nobody handles."""
    await publish(4)

    async def hang(message):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if task.cancelling() > 1:
                    raise

    handled = Recorder(hang)
    consumer = flavour.consumer(pool, key, lease_seconds=1, concurrency=2)
    task = asyncio.ensure_future(consumer.run(handled.handle))
    await until(lambda: len(handled.ids) == 2 and pending(redis, key) == 4)
    task.cancel()
    await asyncio.sleep(pause)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    other = Recorder()
    async with running(flavour.consumer(pool, key, lease_seconds=1), other.handle):
        await until(is_settled(redis, key), timeout=5)
    assert len(other.ids) == 4


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_cancelling_an_iteration(flavour, pool, key, redis, publish, until):
    """A cancelled loop leaves what it held to others, as soon as the consumer is closed."""
    ids = await publish(3)
    seen = []

    async def work():
        async with flavour.consumer(pool, key, concurrency=2) as consumer:
            async for message in consumer:
                seen.append(message.id)
                await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await until(lambda: seen and pending(redis, key) == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert holders(redis, key) == {PARKED: 3}
    other = Recorder()
    async with running(flavour.consumer(pool, key), other.handle):
        await until(is_settled(redis, key))
    assert sorted(other.ids) == sorted(ids)
    assert dict(zip(other.ids, other.counts, strict=True))[seen[0]] == 2


async def test_an_error_in_the_block(flavour, pool, key, redis, publish):
    """A block that is left by an error hands back, too."""
    await publish(2)

    async def work():
        async with flavour.consumer(pool, key) as consumer:
            async for _ in consumer:
                raise LookupError

    with pytest.raises(LookupError):
        await work()
    assert holders(redis, key) in ({PARKED: 1}, {PARKED: 2})


# --- Signals --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal(flavour, server, key, redis, publish, until, number):
    """The first signal stops it: the handler is finished, the rest handed back, exit code 0."""
    await publish(5)
    with process(flavour, server, key, "slow:1") as consumer:
        await until(lambda: redis.llen(f"{key}:log") == 1 and pending(redis, key) >= 2)
        consumer.signal(number)
        await until(lambda: consumer.has_ended)
        assert consumer.ended() == 0
        assert consumer.output == "stopped\n"
    assert redis.llen(f"{key}:done") == 1
    assert holders(redis, key).keys() == {PARKED}
    assert redis.zcard(f"{{{key}}}.due:g") == pending(redis, key)


async def test_a_signal_while_nothing_happens(flavour, server, key, redis, publish, until):
    """A consumer that waits for messages is stopped at once as well."""
    await publish()
    with process(flavour, server, key, "return") as consumer:
        await until(is_settled(redis, key))
        started = time.monotonic()
        consumer.signal(signal.SIGTERM)
        await until(lambda: consumer.has_ended)
        assert time.monotonic() - started < 3
        assert consumer.ended() == 0
    assert holders(redis, key) == {PARKED: 0}


async def test_a_second_signal(flavour, server, key, redis, publish, until):
    """The second one does not wait for handlers; their messages are handed back all the same."""
    await publish(2)
    with process(flavour, server, key, "hang", grace_seconds=60) as consumer:
        await until(lambda: redis.llen(f"{key}:log") == 1 and pending(redis, key) == 2)
        consumer.signal(signal.SIGTERM)
        await until(lambda: holders(redis, key)[PARKED] == 1)
        assert not consumer.has_ended
        consumer.signal(signal.SIGTERM)
        await until(lambda: consumer.has_ended)
        assert consumer.ended() == 0
    assert holders(redis, key) == {PARKED: 2}


async def test_signals_in_another_thread(flavour, pool, key):
    """Elsewhere than in the main thread signals cannot be handled, and run says so."""
    consumer = flavour.consumer(pool, key)
    run = consumer.run(Recorder().handle, signals=True)
    with pytest.raises(ConfigurationError, match="main thread"):
        await (run if flavour.name == "threads" else asyncio.to_thread(asyncio.run, run))
    await consumer.aclose()


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_handlers_of_signals_are_put_back(flavour, pool, key, redis, until):
    """After run, signals do what they did before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with running(flavour.consumer(pool, key), Recorder().handle, signals=True):
        await until(lambda: members(redis, key))
        during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        assert during != before
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert after == before


async def test_counters_after_the_end(flavour, pool, key, redis, publish, until):
    """Health can be asked of a consumer that has ended."""
    await publish(3)
    consumer = flavour.consumer(pool, key)
    async with running(consumer, Recorder().handle):
        await until(lambda: counted(consumer, acknowledged=3))
    health = await consumer.health()
    assert not health.running
    assert (health.ready, health.handling, health.counters.acknowledged) == (0, 0, 3)
