"""A consumer that runs: what becomes of a message when its handler returns, raises or settles."""

import asyncio
import time

import attrs
import pytest

from consuming import (
    Recorder,
    counted,
    dead_letters,
    holders,
    is_settled,
    members,
    pending,
    running,
)
from step_redis import (
    ConfigurationError,
    NotAStreamError,
    PoolClosedError,
    RetryPolicy,
    StepRedisError,
)

AT_ONCE = RetryPolicy(delays=0)


@pytest.fixture
async def publish(stream, key):
    """Publish messages with a running number; returns their ids."""

    async def publish(count=1, name=key, **options):
        return [await stream.publish_message(name, {"n": n}, **options) for n in range(count)]

    return publish


async def fail(message):
    raise ValueError("made up")


async def test_what_returns_is_acknowledged(flavour, pool, key, redis, publish, until):
    """Each message is handled once, in order, and acknowledged when the handler returns."""
    ids, handled = await publish(20), Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
    assert handled.ids == ids
    assert [message.data for message in handled.messages] == [{"n": n} for n in range(20)]
    assert handled.counts == [1] * 20


async def test_what_comes_while_it_waits(flavour, pool, key, redis, publish, until):
    """A message that is published to a waiting consumer is handled at once."""
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(lambda: members(redis, key))
        for number in range(1, 6):
            await publish()
            await until(lambda number=number: len(handled.ids) == number, timeout=0.5)


async def test_what_a_message_says(flavour, pool, stream, key, redis, until):
    """It has data, headers, id, stream, group, count and time of publishing."""
    before = time.time()
    message_id = await stream.publish_message(key, {"b": b"\xff", "n": 1}, headers={"h": "1"})
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
    [message] = handled.messages
    assert (message.id, message.stream, message.group) == (message_id, key, "g")
    assert (message.data, message.headers) == ({"b": b"\xff", "n": 1}, {"h": "1"})
    assert (message.delivery_count, message.error) == (1, None)
    assert before - 1 < message.published_at.timestamp() < time.time() + 1
    assert message_id in repr(getattr(message, "_blocking", message))


async def test_what_raises_is_retried(flavour, pool, key, redis, publish, until, caplog):
    """It comes again after the policy's delay, with a higher count, and not before."""
    await publish()

    async def fail_twice(message):
        if message.delivery_count < 3:
            raise ValueError("made up")

    handled = Recorder(fail_twice)
    consumer = flavour.consumer(pool, key, retry=RetryPolicy(delays=[0.3, 0.6]))
    async with running(consumer, handled.handle):
        counters = await until(lambda: counted(consumer, acknowledged=1))
    assert handled.counts == [1, 2, 3]
    first, second, third = handled.times
    assert 0.29 < second - first < 1.3
    assert 0.59 < third - second < 1.6
    assert (counters.received, counters.redelivered, counters.retried) == (3, 2, 2)
    told = [record for record in caplog.records if "ValueError: made up" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"] * 2
    assert handled.ids[0] in told[0].getMessage()


async def test_a_delay_outlives_the_consumer(flavour, pool, key, redis, publish, until):
    """What waits for its retry when the consumer stops comes to another one when it is due."""
    await publish()
    failed, handled = Recorder(fail), Recorder()
    options = {"retry": RetryPolicy(delays=1.5)}
    async with running(flavour.consumer(pool, key, **options), failed.handle):
        await until(lambda: holders(redis, key).get(b"_step:parked") == 1)
    async with running(flavour.consumer(pool, key, **options), handled.handle):
        await until(is_settled(redis, key))
    assert handled.counts == [2]
    assert 1.49 < handled.times[0] - failed.times[0] < 2.7


async def test_the_last_delivery_goes_to_the_dead_letters(
    flavour, pool, key, redis, publish, until, caplog
):
    """After max_deliveries failures a message is a dead letter, acknowledged, and not retried."""
    await publish()
    handled = Recorder(fail)
    retry = RetryPolicy(max_deliveries=3, delays=0)
    consumer = flavour.consumer(pool, key, retry=retry)
    async with running(consumer, handled.handle):
        await until(lambda: counted(consumer, dead_lettered=1))
    assert handled.counts == [1, 2, 3]
    [(_, about)] = dead_letters(redis, key)
    assert (about["error-type"], about["error"], about["deliveries"]) == (
        *("ValueError", "made up", "3"),
    )
    told = [record for record in caplog.records if "made up" in caplog.text]
    assert [record.levelname for record in told] == ["WARNING", "WARNING", "ERROR"]
    # Whoever looks for the cause finds it in the log.
    assert told[-1].exc_info


async def test_errors_that_no_retry_mends(flavour, pool, key, redis, publish, until):
    """Errors of the classes in non_retryable, and of classes below, give a message up at once."""
    await publish()
    handled = Recorder(fail)
    retry = RetryPolicy(non_retryable=(Exception,), delays=0)
    async with running(flavour.consumer(pool, key, retry=retry), handled.handle):
        await until(is_settled(redis, key))
    assert handled.counts == [1]
    assert len(dead_letters(redis, key)) == 1


async def test_an_error_that_cannot_be_shown(flavour, pool, key, redis, publish, until):
    """An error whose text raises is a failure like others, and ends nothing."""
    [first, _] = await publish(2)

    class UnspeakableError(Exception):
        def __str__(self):
            raise ValueError("no text")

    async def fail_first(message):
        if message.id == first:
            raise UnspeakableError

    handled = Recorder(fail_first)
    retry = RetryPolicy(max_deliveries=2, delays=0)
    async with running(flavour.consumer(pool, key, retry=retry), handled.handle):
        await until(is_settled(redis, key))
    assert sorted(handled.counts) == [1, 1, 2]
    [(_, about)] = dead_letters(redis, key)
    assert about["error-type"].endswith("UnspeakableError")


async def test_an_entry_that_cannot_be_decoded(flavour, pool, key, redis, publish, until, caplog):
    """It goes to the dead-letter stream without being handled; what comes behind goes on."""
    broken = redis.xadd(key, {"n": "x", "_step:t": '{"n":"j"}'}).decode()
    ids, handled = await publish(), Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
    assert handled.ids == ids
    [(_, about)] = dead_letters(redis, key)
    assert (about["id"], about["error-type"]) == (broken, "DecodeError")
    assert "not valid JSON" in about["error"]
    assert any(broken in record.getMessage() for record in caplog.records)


async def test_other_groups_see_no_retries(flavour, pool, stream, key, redis, publish, until):
    """A retry is for the group whose handler failed; the other one gets each message once."""
    await stream.create_input_stream(key, "other")
    await publish(3)
    failed, other = Recorder(fail), Recorder()
    retry = RetryPolicy(max_deliveries=3, delays=0)
    async with (
        running(flavour.consumer(pool, key, retry=retry), failed.handle),
        running(flavour.consumer(pool, key, "other"), other.handle),
    ):
        await until(is_settled(redis, key))
        await until(is_settled(redis, key, "other"))
    assert sorted(failed.counts) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert other.counts == [1, 1, 1]
    assert redis.xlen(key) == 3


async def test_several_streams_take_turns(flavour, pool, key, redis, publish, until):
    """A stream with a backlog does not keep the others waiting."""
    names = [f"{key}:{letter}" for letter in "abc"]
    await publish(200, names[0])
    await publish(10, names[1])
    await publish(10, names[2])
    handled = Recorder()
    async with running(flavour.consumer(pool, names, prefetch=30), handled.handle):
        for name in names:
            await until(is_settled(redis, name))
    streams = [message.stream for message in handled.messages]
    assert {name: streams.count(name) for name in names} == dict(
        zip(names, (200, 10, 10), strict=True)
    )
    assert max(i for i, name in enumerate(streams) if name != names[0]) < 100


async def test_one_slow_handler_does_not_stop_the_others(
    flavour, pool, key, redis, publish, until, release
):
    """With concurrency, messages behind one that hangs are handled; at most so many at once."""
    first, *_ = await publish(30)
    at_once = 0

    async def hang_first(message):
        nonlocal at_once
        at_once += 1
        assert at_once <= 3
        if message.id == first:
            await release.wait()
        await asyncio.sleep(0.001)
        at_once -= 1

    handled = Recorder(hang_first)
    async with running(flavour.consumer(pool, key, concurrency=3), handled.handle):
        await until(lambda: pending(redis, key) == 1 and len(handled.ids) == 30)
        release.set()
        await until(is_settled(redis, key))
    assert handled.counts == [1] * 30


@pytest.mark.parametrize("due", [0, 40], ids=["new ones", "due ones too"])
async def test_prefetch_bounds_what_is_held(
    flavour, pool, stream, key, redis, until, publish, due, release
):
    """About prefetch messages are held beside the one that is handled: a read less or more."""
    handled = Recorder(lambda _: release.wait())
    consumer = flavour.consumer(pool, key, prefetch=10)
    if due:
        await publish(due)
        async with flavour.consumer(pool, key, prefetch=due) as other:
            async for message in other:
                await message.nack(1)
                if pending(redis, key) == due and holders(redis, key)[b"_step:parked"] == due:
                    break
    async with running(consumer, handled.handle):
        await until(lambda: members(redis, key))
        await publish(60)
        await until(lambda: handled.ids)
        for _ in range(20):
            health = await consumer.health()
            assert health.ready <= (20 if due else 10)
            assert health.handling == 1
            await asyncio.sleep(0.1)
        release.set()
        await until(is_settled(redis, key))
    assert sorted(handled.counts) == [1] * 60 + [2] * due


async def test_prefetch_bytes_bounds_what_is_held(
    flavour, pool, stream, key, redis, until, release
):
    """Large messages are not hoarded, though there may be many small ones."""
    for _ in range(40):
        await stream.publish_message(key, {"text": "x" * 100_000})
    handled = Recorder(lambda _: release.wait())
    consumer = flavour.consumer(pool, key, prefetch_bytes=500_000, prefetch=5)
    async with running(consumer, handled.handle):
        await until(lambda: handled.ids)
        for _ in range(10):
            assert (await consumer.health()).ready <= 7
            await asyncio.sleep(0.05)
        release.set()
        await until(is_settled(redis, key))
    assert len(handled.ids) == 40


async def test_a_handler_of_the_other_flavour(flavour, pool, key, redis, publish):
    """It is refused before anything is read, by an error that says which kind is wanted."""
    await publish()
    consumer = flavour.consumer(pool, key)
    with pytest.raises(ConfigurationError, match=r"handler (must be|is) an async function"):
        await run_as_other(consumer)
    assert not redis.exists(f"{{{key}}}.leases:g")
    handled = Recorder()
    await _handle_one(consumer, handled)
    assert handled.counts == [1]


async def run_as_other(consumer):
    """Run with a handler of the other flavour, which the adapter is not to translate."""
    if (blocking := getattr(consumer, "_blocking", None)) is None:
        await consumer.run(lambda message: None)
    else:
        await asyncio.to_thread(blocking.run, fail)


async def _handle_one(consumer, handled):
    async def stop(message):
        await handled.handle(message)
        consumer.stop()

    async with consumer:
        await consumer.run(stop)


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_a_callable_that_turns_out_to_be_of_the_other_flavour(
    flavour, pool, key, redis, publish, until
):
    """What only the first call can show is one error too, and the message is not lost."""
    await publish()

    class Blocking:
        def __call__(self, message):
            return None

    async with flavour.consumer(pool, key) as consumer:
        with pytest.raises(ConfigurationError, match="must be an async function"):
            await consumer.run(Blocking())
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
    assert len(handled.ids) == 1


@pytest.mark.parametrize("handler", [None, "name", 5])
async def test_what_is_no_handler_at_all(flavour, pool, key, handler):
    """What cannot be called is refused with its type."""
    async with flavour.consumer(pool, key) as consumer:
        with pytest.raises(ConfigurationError, match=f"got {type(handler).__name__}"):
            await consumer.run(handler)


async def test_run_twice_at_once(flavour, pool, key, redis, publish, until):
    """The second run is refused, and the first one goes on."""
    handled = Recorder()
    consumer = flavour.consumer(pool, key)
    async with running(consumer, handled.handle):
        await publish()
        await until(lambda: handled.ids)
        with pytest.raises(ConfigurationError, match="running already"):
            await consumer.run(handled.handle)
        await publish()
        await until(lambda: len(handled.ids) == 2)
        await until(is_settled(redis, key))


async def test_run_again(flavour, pool, key):
    """A consumer that was stopped or closed stays so, and says what to do."""
    consumer = flavour.consumer(pool, key)
    async with running(consumer, fail):
        pass
    with pytest.raises(PoolClosedError, match="make another one"):
        await consumer.run(fail)
    unused = flavour.consumer(pool, key)
    await unused.aclose()
    await unused.aclose()
    with pytest.raises(PoolClosedError, match="make another one"):
        async for _ in unused:
            pass


async def test_a_key_that_is_no_stream(flavour, pool, key, redis):
    """A key that holds something else is no outage: run says so."""
    redis.set(key, "text")
    async with flavour.consumer(pool, key) as consumer:
        with pytest.raises(NotAStreamError):
            await consumer.run(fail)


@pytest.mark.parametrize(
    ("streams", "group", "message"),
    [
        ([], "g", "at least one stream"),
        (["a", "a"], "g", "none twice"),
        ([""], "g", "streams must be a str"),
        (["a{b"], "g", "braces"),
        ([5], "g", "streams must be a str"),
        ("a", "", "group must be a str"),
    ],
)
async def test_names_that_cannot_work(flavour, pool, streams, group, message):
    """Streams and groups are checked when the consumer is made."""
    with pytest.raises(ConfigurationError, match=message):
        flavour.consumer(pool, streams, group)


async def test_a_pool_of_redis_py(flavour, params, key, redis, publish, until):
    """A redis-py connection pool of the flavour serves as well."""
    made = flavour.redis.BlockingConnectionPool(host=params.host, port=params.port)
    ids, handled = await publish(5), Recorder()
    async with running(flavour.consumer(made, key), handled.handle):
        await until(is_settled(redis, key))
    assert handled.ids == ids
    await flavour.adapt(made).disconnect()


async def test_few_connections_serve_many_handlers(flavour, params, key, redis, publish, until):
    """Two connections are enough: nothing waits for one while it holds another."""
    few = attrs.evolve(params, max_connections=1, max_read_connections=1)
    await publish(100)
    async with flavour.pool(few) as pool:
        handled = Recorder()
        async with running(flavour.consumer(pool, key, concurrency=20), handled.handle):
            await until(is_settled(redis, key))
    assert sorted(handled.counts) == [1] * 100


async def test_two_consumers_share_the_work(flavour, pool, key, redis, publish, until):
    """Each message goes to one of them."""
    one, other = Recorder(), Recorder()
    async with (
        running(flavour.consumer(pool, key, prefetch=5), one.handle),
        running(flavour.consumer(pool, key, prefetch=5), other.handle),
    ):
        await until(lambda: len(members(redis, key)) == 2)
        ids = await publish(200)
        await until(is_settled(redis, key))
    assert sorted(one.ids + other.ids) == sorted(ids)
    assert one.ids
    assert other.ids


async def test_errors_are_logged_once(flavour, pool, key, redis, caplog):
    """A failure of run is logged once, with stream and group."""
    async with flavour.consumer(pool, key, on_group_lost="fail") as consumer:
        with pytest.raises(StepRedisError) as caught:
            await consumer.run(fail)
    assert (caught.value.stream, caught.value.group) == (key, "g")
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
