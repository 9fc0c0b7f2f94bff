"""Health: what a consumer says of itself and of its groups, at a cost that does not grow."""

import asyncio
import time

import attrs
import pytest

from consuming import Recorder, counted, holders, is_settled, members, running
from step_redis import RetryPolicy, StepRedisPoolParams

TOKEN = "0123456789abcdef"


async def test_before_it_runs(flavour, pool, key, publish):
    """A consumer that was not started tells what the server knows."""
    await publish(3)
    async with flavour.consumer(pool, key) as consumer:
        health = await consumer.health()
    assert (health.running, health.stuck, health.error) == (False, False, None)
    assert (health.ready, health.handling, health.longest_handling_seconds) == (0, 0, 0)
    assert (health.seconds_since_read, health.seconds_since_settled) == (None, None)
    [about] = health.streams
    assert (about.stream, about.pending, about.delayed, about.dead_letters) == (key, 0, 0, 0)
    assert about.oldest_pending_seconds is None
    assert set(attrs.asdict(health.counters).values()) == {0}


async def test_without_a_stream(flavour, pool, key):
    """A stream that is not there yet is nothing to fail of."""
    async with flavour.consumer(pool, key) as consumer:
        health = await consumer.health()
    [about] = health.streams
    assert health.error is None
    assert (about.lag, about.pending, about.oldest_pending_seconds) == (None, None, None)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_while_it_handles(
    flavour, params, server, key, redis, publish, until, release, protocol
):
    """What is handled and held, pending, lag, and since when, on both protocols."""
    await publish(10)
    handled = Recorder(lambda _: release.wait())
    async with flavour.pool(attrs.evolve(params, protocol=protocol)) as pool:
        consumer = flavour.consumer(pool, key, concurrency=2, prefetch=4)
        async with running(consumer, handled.handle):
            await until(lambda: len(handled.ids) == 2)
            started = handled.times[0]
            await asyncio.sleep(0.3)
            health = await consumer.health()
            release.set()
            await until(is_settled(redis, key))
            await until(lambda: counted(consumer, acknowledged=10))
            after = await consumer.health()
    assert (health.running, health.stuck, health.error) == (True, False, None)
    assert health.handling == 2
    assert 2 <= health.ready <= 4
    assert 0.29 < health.longest_handling_seconds < time.monotonic() - started
    assert health.seconds_since_read > 0.2
    assert health.seconds_since_settled is None
    [about] = health.streams
    assert about.pending == health.ready + 2
    assert 0.2 < about.oldest_pending_seconds < 30
    has_lag = server.info.version >= (7,)
    assert about.lag == (10 - about.pending if has_lag else None)
    assert after.seconds_since_settled < 5
    assert (after.ready, after.handling) == (0, 0)
    assert after.streams[0].lag == (0 if has_lag else None)


async def test_delayed_and_dead(flavour, pool, key, redis, publish, until):
    """What waits for its retry is told apart from what is pending; dead letters are counted."""
    await publish(5)

    async def fail(message):
        if message.data["n"] < 2:
            await message.reject()
        raise ValueError("made up")

    consumer = flavour.consumer(pool, key, retry=RetryPolicy(delays=1000))
    async with running(consumer, fail):
        await until(lambda: holders(redis, key).get(b"_step:parked") == 3)
        await until(lambda: counted(consumer, retried=3))
        health = await consumer.health()
    [about] = health.streams
    assert (about.pending, about.delayed, about.dead_letters) == (3, 3, 2)
    assert (health.counters.received, health.counters.dead_lettered) == (5, 2)


async def test_several_streams(flavour, pool, stream, key):
    """Each stream is told of, in the order they were given."""
    names = [f"{key}:{letter}" for letter in "cab"]
    for count, name in enumerate(names):
        await stream.create_input_stream(name, "g")
        for _ in range(count):
            await stream.publish_message(name, {"n": 1})
            await stream.receive_message(name, "g", "c")
    async with flavour.consumer(pool, names) as consumer:
        health = await consumer.health()
    assert [(one.stream, one.pending) for one in health.streams] == list(
        zip(names, (0, 1, 2), strict=True)
    )


async def test_stuck(flavour, pool, key, redis, publish, until, release):
    """With something to do and no progress for stuck_seconds, it says so, until it goes on."""
    await publish(3)
    handled = Recorder(lambda _: release.wait())
    consumer = flavour.consumer(pool, key, stuck_seconds=0.5)

    async def is_stuck():
        return (await consumer.health()).stuck

    async with running(consumer, handled.handle):
        await until(lambda: handled.ids)
        assert not await is_stuck()
        await until(is_stuck)
        release.set()
        await until(is_settled(redis, key))
        # With nothing to do, no progress is fine.
        await asyncio.sleep(0.6)
        assert not await is_stuck()
    assert not await is_stuck()


async def test_a_server_that_is_away(flavour, params, proxy, key, redis, publish, until):
    """Health does not fail: it says why it knows nothing of the server, and soon."""
    await publish(1)
    through = attrs.evolve(
        params, host=proxy.host, port=proxy.port, socket_timeout=1, socket_connect_timeout=1
    )
    async with flavour.pool(through) as pool:
        consumer = flavour.consumer(pool, key)
        async with running(consumer, Recorder().handle):
            await until(is_settled(redis, key))
            proxy.refuse()
            proxy.cut()
            started = time.monotonic()
            health = await consumer.health()
            assert time.monotonic() - started < 5
            assert "cannot connect" in health.error or "broke" in health.error
            assert health.running
            assert health.streams[0].pending is None
            proxy.accept()
            await until(lambda: _answers(consumer))


async def _answers(consumer):
    return (await consumer.health()).error is None


async def test_a_server_that_hangs(flavour, params, proxy, key, redis, publish, until):
    """Nor does it wait for long for a server that does not answer."""
    await publish(1)
    through = attrs.evolve(params, host=proxy.host, port=proxy.port)
    async with flavour.pool(through) as pool:
        consumer = flavour.consumer(pool, key)
        async with running(consumer, Recorder().handle):
            await until(is_settled(redis, key))
            proxy.hold_replies()
            started = time.monotonic()
            health = await consumer.health()
            assert time.monotonic() - started < 4
            assert "did not answer" in health.error
            proxy.release_replies()
            proxy.cut()
            await until(lambda: _answers(consumer))


async def test_what_it_costs(flavour, private_server):
    """The number of commands is the same however much is pending and whoever holds it."""
    server = private_server()
    params = StepRedisPoolParams.from_url(server.url)

    def calls():
        """How often each command ran, those that the test itself sends left out."""
        own = "cmdstat_info", "cmdstat_config|resetstat", "cmdstat_config"
        return {
            name: row["calls"]
            for name, row in client.info("commandstats").items()
            if name not in own
        }

    with server.client() as client:
        client.xgroup_create("orders", "g", "0", mkstream=True)
        async with flavour.pool(params) as pool, flavour.consumer(pool, "orders") as consumer:
            await consumer.health()
            costs = []
            for count in (0, 100, 10_000):
                with client.pipeline() as pipe:
                    for n in range(count):
                        pipe.xadd("orders", {"n": n})
                    pipe.execute()
                for n in range(count // 10):
                    client.xreadgroup("g", f"c{n}~{TOKEN}", {"orders": ">"}, count=10)
                client.config_resetstat()
                health = await consumer.health()
                costs.append(calls())
                assert health.streams[0].pending >= count
    assert costs[0] == costs[1] == costs[2]
    assert sum(costs[0].values()) == 5


async def test_counters_are_a_copy(flavour, pool, key, redis, publish, until):
    """What was returned does not change any more."""
    await publish(1)
    consumer = flavour.consumer(pool, key)
    async with running(consumer, Recorder().handle):
        await until(lambda: counted(consumer, acknowledged=1))
        before = await consumer.health()
        await publish(1)
        await until(lambda: counted(consumer, acknowledged=2))
        assert before.counters.acknowledged == 1
        assert members(redis, key)
