"""Leases: who holds a message, how long, and what becomes of it when the holder is gone."""

import asyncio
import signal
import time

import pytest

from consuming import (
    PARKED,
    Recorder,
    counted,
    dead_letters,
    holders,
    is_settled,
    members,
    pending,
    process,
    running,
)
from step_redis import HandlerTimeoutError, LeaseLost, RetryPolicy

TOKEN = "0123456789abcdef"


async def test_handling_longer_than_the_lease(flavour, pool, key, redis, publish, until, release):
    """A handler of several leases keeps its message, and what is ready behind it too."""
    ids = await publish(4)
    slow, idle = Recorder(lambda _: release.wait()), Recorder()
    consumer = flavour.consumer(pool, key, lease_seconds=1, concurrency=2)
    async with running(consumer, slow.handle):
        await until(lambda: pending(redis, key) == 4)
        async with running(flavour.consumer(pool, key, lease_seconds=1), idle.handle):
            await asyncio.sleep(4)
            assert idle.ids == []
            release.set()
            await until(is_settled(redis, key))
    assert sorted(slow.ids) == sorted(ids)
    assert slow.counts == [1] * 4


async def test_a_killed_consumer(flavour, server, pool, key, redis, publish, until):
    """What a killed process held is taken over when its lease ends; the process leaves nothing."""
    ids = await publish(4)
    with process(flavour, server, key, "hang", lease_seconds=2, concurrency=2) as victim:
        await until(lambda: pending(redis, key) == 4 and redis.llen(f"{key}:log") == 2)
        victim.signal(signal.SIGKILL)
        killed = time.monotonic()
        handled = Recorder()
        consumer = flavour.consumer(pool, key, lease_seconds=1)
        async with running(consumer, handled.handle):
            await until(is_settled(redis, key))
            counters = await until(lambda: counted(consumer, consumers_removed=1))
            assert counters.taken_over == 4
            assert len(members(redis, key)) == 1
    assert sorted(handled.ids) == sorted(ids)
    assert handled.counts == [2] * 4
    assert 1 < handled.times[0] - killed < 5


async def test_a_consumer_that_was_stopped_in_its_tracks(
    flavour, server, pool, key, redis, publish, until, release
):
    """Waking up after its lease, it settles nothing, joins anew by itself, and goes on."""
    await publish()
    with process(flavour, server, key, "ack:0.3", lease_seconds=1) as sleeper:
        await until(lambda: redis.llen(f"{key}:log") == 1)
        sleeper.signal(signal.SIGSTOP)
        [first_name] = members(redis, key)
        other = Recorder(lambda _: release.wait())
        async with running(flavour.consumer(pool, key, lease_seconds=1), other.handle):
            await until(lambda: other.ids)
            sleeper.signal(signal.SIGCONT)
            await until(lambda: redis.llen(f"{key}:done") == 1)
            assert redis.lindex(f"{key}:done", 0).decode() == f"{other.ids[0]} LeaseLost"
            assert pending(redis, key) == 1
            release.set()
            await until(is_settled(redis, key))
        await publish()
        await until(lambda: redis.llen(f"{key}:done") == 2)
        assert redis.lindex(f"{key}:done", 1).endswith(b" acknowledged")
        [name] = members(redis, key)
        assert name != first_name
        assert name.rpartition(b"~")[0] == first_name.rpartition(b"~")[0]


async def test_consumers_of_other_programs(flavour, pool, stream, key, redis, publish, until):
    """Names that are not of ours are left alone, however idle, and keep what is theirs."""
    await publish(3)
    for name in ("plain", "dash-0123456789abcdef", "short~0123", "UPPER~0123456789abcdeg"):
        redis.xreadgroup("g", name, {key: ">"}, count=1)
    handled = Recorder()
    async with running(flavour.consumer(pool, key, lease_seconds=1), handled.handle):
        await publish()
        await until(lambda: handled.ids)
        await asyncio.sleep(2.5)
    assert len(handled.ids) == 1
    assert pending(redis, key) == 3
    # The fourth never had any; it was there before and is still.
    assert {b"plain", b"dash-0123456789abcdef", b"short~0123"} <= members(redis, key)


async def test_foreign_idle_seconds(flavour, pool, key, redis, publish, until):
    """With an idle limit, what others left longer than that is taken over, not earlier."""
    ids = await publish(3)
    redis.xreadgroup("g", "plain", {key: ">"}, count=10)
    left = time.monotonic()
    handled = Recorder()
    async with running(flavour.consumer(pool, key, foreign_idle_seconds=2), handled.handle):
        await until(is_settled(redis, key))
    assert sorted(handled.ids) == sorted(ids)
    assert handled.counts == [2] * 3
    assert handled.times[0] - left > 1.9
    assert b"plain" in members(redis, key)


async def test_names_of_ours_without_a_lease(flavour, pool, key, redis, publish, until):
    """A name of our form that no record knows is abandoned: its messages come at once."""
    ids = await publish(10)
    redis.xreadgroup("g", f"dead~{TOKEN}", {key: ">"}, count=10)
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
        await until(lambda: len(members(redis, key)) == 1)
    assert sorted(handled.ids) == sorted(ids)
    assert handled.counts == [2] * 10


async def test_the_records_may_vanish(flavour, pool, key, redis, publish, until):
    """Leases and due times that were evicted cost no message; the consumer joins anew."""
    await publish(3)

    async def fail_once(message):
        if message.delivery_count == 1:
            raise ValueError("made up")

    handled = Recorder(fail_once)
    consumer = flavour.consumer(pool, key, retry=RetryPolicy(delays=1000))
    async with running(consumer, handled.handle):
        await until(lambda: holders(redis, key).get(PARKED) == 3)
        redis.delete(f"{{{key}}}.leases:g", f"{{{key}}}.due:g", f"{{{key}}}.attempts:g")
        await until(is_settled(redis, key))
        assert (await consumer.health()).counters.leases_lost == 1
    assert sorted(handled.counts) == [1, 1, 1, 2, 2, 2]


async def test_deleted_while_pending(flavour, pool, key, redis, publish, until):
    """An entry that is deleted while it waits for its retry is acknowledged away."""
    ids = await publish(5)

    async def fail_once(message):
        if message.delivery_count == 1:
            raise ValueError("made up")

    handled = Recorder(fail_once)
    consumer = flavour.consumer(pool, key, retry=RetryPolicy(delays=1))
    async with running(consumer, handled.handle):
        await until(lambda: holders(redis, key).get(PARKED) == 5)
        redis.xdel(key, *ids[1:4])
        await until(is_settled(redis, key))
    assert sorted(handled.ids) == sorted([*ids, ids[0], ids[4]])
    assert redis.exists(f"{{{key}}}.due:g", f"{{{key}}}.attempts:g") == 0


async def test_deleted_while_held_by_the_dead(flavour, pool, key, redis, publish, until):
    """So is one that is deleted while a dead consumer holds it."""
    ids = await publish(5)
    redis.xreadgroup("g", f"dead~{TOKEN}", {key: ">"}, count=10)
    redis.xdel(key, *ids[1:4])
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(lambda: pending(redis, key) == 0)
        await until(lambda: len(members(redis, key)) == 1)
    assert sorted(handled.ids) == [ids[0], ids[4]]
    assert redis.exists(f"{{{key}}}.due:g", f"{{{key}}}.attempts:g") == 0


async def test_a_message_that_kills(flavour, server, pool, key, redis, publish, until):
    """A message that ends its process again and again goes to the dead letters, unhandled."""
    [poison] = await publish()
    options = {"lease_seconds": 1}
    for deaths in (1, 2):
        with process(flavour, server, key, "die", **options) as victim:
            await until(lambda deaths=deaths: redis.llen(f"{key}:log") == deaths, timeout=20)
            victim.ended()
    handled = Recorder()
    retry = RetryPolicy(max_lost_deliveries=2)
    consumer = flavour.consumer(pool, key, lease_seconds=1, retry=retry)
    async with running(consumer, handled.handle):
        await until(is_settled(redis, key))
        other = await publish()
        await until(lambda: handled.ids)
    assert handled.ids == other
    [(_, about)] = dead_letters(redis, key)
    assert (about["id"], about["error-type"]) == (poison, "MaxLostDeliveries")


async def test_lost_deliveries_do_not_count_as_failed(flavour, pool, key, redis, publish, until):
    """A delivery that ended with its consumer leaves the number of retries as it was."""
    await publish()
    redis.xreadgroup("g", f"dead~{TOKEN}", {key: ">"})

    async def fail(message):
        raise ValueError("made up")

    handled = Recorder(fail)
    retry = RetryPolicy(max_deliveries=2, delays=0)
    async with running(flavour.consumer(pool, key, retry=retry), handled.handle):
        await until(is_settled(redis, key))
    assert handled.counts == [2, 3]


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "does not end"])
async def test_handler_timeout(flavour, pool, key, redis, publish, until, ends, release):
    """A handler that takes too long has failed: another takes its place, and it settles nothing."""
    [first, *_] = await publish(3)
    results = []

    async def hang_first(message):
        if message.id == first and message.delivery_count == 1:
            while True:
                try:
                    await release.wait()
                    break
                except asyncio.CancelledError:
                    if ends:
                        raise
            try:
                await message.ack()
            except LeaseLost as error:
                results.append(error)

    handled = Recorder(hang_first)
    retry = RetryPolicy(delays=0)
    consumer = flavour.consumer(pool, key, handler_timeout_seconds=0.5, retry=retry)
    async with running(consumer, handled.handle):
        await until(is_settled(redis, key))
        abandoned = (await consumer.health()).counters.handlers_abandoned
        is_cancelled = ends and flavour.name == "asyncio"
        assert abandoned == (0 if is_cancelled else 1)
        release.set()
        await until(lambda: is_cancelled or results)
        await publish(1)
        await until(is_settled(redis, key))
    assert sorted(handled.counts) == [1, 1, 1, 1, 2]


async def test_handler_timeout_is_the_error(flavour, pool, key, redis, publish, until, release):
    """The dead letter of a message that took too long says so; the policy may name the error."""
    await publish()
    handled = Recorder(lambda _: release.wait())
    retry = RetryPolicy(non_retryable=(HandlerTimeoutError,))
    consumer = flavour.consumer(pool, key, handler_timeout_seconds=0.3, retry=retry)
    async with running(consumer, handled.handle):
        await until(lambda: dead_letters(redis, key))
        release.set()
    [(_, about)] = dead_letters(redis, key)
    assert about["error-type"] == "HandlerTimeoutError"
    assert "handler_timeout_seconds" in about["error"]


async def test_extend(flavour, pool, key, redis, publish, until):
    """A handler that says that it goes on is left to."""
    await publish()

    async def work(message):
        for _ in range(8):
            await asyncio.sleep(0.25)
            await message.extend()

    handled = Recorder(work)
    consumer = flavour.consumer(pool, key, handler_timeout_seconds=0.6)
    async with running(consumer, handled.handle):
        await until(is_settled(redis, key))
        assert (await consumer.health()).counters.handlers_abandoned == 0
    assert handled.counts == [1]


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_a_blocked_event_loop(flavour, pool, key, redis, publish, until, caplog):
    """A handler that blocks the event loop is found out by the late heartbeat."""
    await publish()

    async def block(message):
        if message.delivery_count == 1:
            time.sleep(2.2)

    handled = Recorder(block)
    async with running(flavour.consumer(pool, key, lease_seconds=1), handled.handle):
        await until(is_settled(redis, key))
    assert "heartbeat" in caplog.text
    assert "blocks the event loop" in caplog.text
    # The lease was lost meanwhile, so that the message came again.
    assert handled.counts == [1, 2]
