"""Messages settled by handlers, and by whoever iterates over a consumer."""

import asyncio

import pytest

from consuming import PARKED, Recorder, counted, dead_letters, holders, is_settled, pending, running
from step_redis import ConfigurationError, EncodeError, LeaseLost, NotAStreamError, RetryPolicy


@pytest.fixture
async def publish(stream, key):
    """Publish messages with a running number; returns their ids."""

    async def publish(count=1):
        return [await stream.publish_message(key, {"n": n}) for n in range(count)]

    return publish


@pytest.fixture
async def held(flavour, pool, key, publish):
    """The first message of a consumer that is iterated over."""
    await publish()
    async with flavour.consumer(pool, key, retry=RetryPolicy(delays=0.2)) as consumer:
        iterator = aiter(consumer)
        yield await anext(iterator)
        await iterator.aclose()


async def test_ack(held, key, redis):
    """Ack returns when the server has confirmed it."""
    await held.ack()
    assert pending(redis, key) == 0


async def test_nack(held, key, redis):
    """Nack gives a message back, as pending with nobody, to be due after the policy's delay."""
    await held.nack()
    assert holders(redis, key)[PARKED] == 1
    [(entry, due)] = redis.zrange(f"{{{key}}}.due:g", 0, -1, withscores=True)
    seconds, microseconds = redis.time()
    assert entry.decode() == held.id
    assert due <= seconds * 1000 + microseconds / 1000 + 200


async def test_nack_with_a_delay(held, key, redis):
    """A delay that is given takes the place of the policy's."""
    await held.nack(1000)
    [(_, due)] = redis.zrange(f"{{{key}}}.due:g", 0, -1, withscores=True)
    assert 990 < due / 1000 - redis.time()[0] <= 1001


@pytest.mark.parametrize("delay", [-1, "1", True, float("nan"), 1e10])
async def test_delays_that_cannot_work(held, key, redis, delay):
    """They are refused, and the message is held as before."""
    with pytest.raises(ConfigurationError, match="delay_seconds must be"):
        await held.nack(delay)
    await held.ack()
    assert pending(redis, key) == 0


async def test_nack_of_the_last_delivery(flavour, pool, key, redis, publish, until):
    """After the last delivery, nack is the way to the dead letters, with a delay or without."""
    await publish()
    handled = Recorder(lambda message: message.nack(0))
    retry = RetryPolicy(max_deliveries=2)
    async with running(flavour.consumer(pool, key, retry=retry), handled.handle):
        await until(is_settled(redis, key))
    assert handled.counts == [1, 2]
    [(_, about)] = dead_letters(redis, key)
    assert about["deliveries"] == "2"


async def test_reject(held, key, redis):
    """Reject moves a message to the dead letters at once, with the reason."""
    await held.reject("not mine")
    assert pending(redis, key) == 0
    [(_, about)] = dead_letters(redis, key)
    assert (about["id"], about["error"], about["deliveries"]) == (held.id, "not mine", "1")


async def test_reasons_are_text(held):
    """A reason of another type is refused."""
    with pytest.raises(ConfigurationError, match="reason must be a str"):
        await held.reject(5)


async def test_forward(held, stream, key, redis):
    """Forward publishes to another stream and acknowledges, and returns the id."""
    target = f"{{{key}}}.paid"
    written = await held.forward(target, {"n": 1, "raw": b"\xff"}, headers={"h": "1"})
    assert pending(redis, key) == 0
    await stream.create_input_stream(target, "g")
    [message] = await stream.receive_message(target, "g", "c")
    assert message["id"] == written
    assert (message["data"], message["headers"]) == ({"n": 1, "raw": b"\xff"}, {"h": "1"})


async def test_forward_to_another_slot(held, key, redis):
    """A stream of another slot is refused whatever the server is, and the message is kept."""
    with pytest.raises(ConfigurationError, match="same hash tag"):
        await held.forward(f"{key}:other", {"n": 1})
    assert not redis.exists(f"{key}:other")
    assert pending(redis, key) == 1
    await held.ack()


async def test_forward_to_a_key_that_is_no_stream(held, key, redis):
    """The message is kept, and can still be settled otherwise."""
    redis.set(f"{{{key}}}.paid", "text")
    with pytest.raises(NotAStreamError) as caught:
        await held.forward(f"{{{key}}}.paid", {"n": 1})
    assert (caught.value.stream, caught.value.message_id) == (key, held.id)
    assert pending(redis, key) == 1
    await held.ack()
    assert pending(redis, key) == 0


async def test_forward_what_cannot_be_stored(held, key, redis):
    """Encoding comes first: nothing is changed."""
    with pytest.raises(EncodeError):
        await held.forward(f"{{{key}}}.paid", {"n": {1, 2}})
    assert pending(redis, key) == 1


async def test_forward_with_default(flavour, pool, key, redis, publish, until):
    """A consumer's default turns other types into storable ones."""
    await publish()
    target = f"{{{key}}}.paid"
    handled = Recorder(lambda message: message.forward(target, {"n": {1}}))
    async with running(flavour.consumer(pool, key, default=list), handled.handle):
        await until(is_settled(redis, key))
    assert redis.xrange(target)[0][1][b"n"] == b"[1]"


ACTIONS = {
    "ack": lambda message: message.ack(),
    "nack": lambda message: message.nack(1000),
    "reject": lambda message: message.reject("again"),
    "forward": lambda message: message.forward(f"{{{message.stream}}}.paid", {"n": 1}),
}


async def test_settling_twice(flavour, pool, key, redis, publish):
    """Whichever settlement comes second raises LeaseLost and changes nothing."""
    pairs = [(first, second) for first in ACTIONS.values() for second in ACTIONS.values()]
    await publish(len(pairs))

    def state(message_id):
        """All that a settlement could change; more may be read meanwhile."""
        return (
            redis.xpending_range(key, "g", message_id, message_id, 1),
            redis.zrange(f"{{{key}}}.due:g", 0, -1, withscores=True),
            redis.xlen(f"{{{key}}}.dead"),
            redis.xlen(f"{{{key}}}.paid"),
        )

    async with flavour.consumer(pool, key) as consumer:
        iterator = aiter(consumer)
        for first, second in pairs:
            held = await anext(iterator)
            await first(held)
            before = state(held.id)
            with pytest.raises(LeaseLost, match="settled already") as caught:
                await second(held)
            assert not caught.value.outcome_unknown
            about = caught.value.stream, caught.value.group, caught.value.message_id
            assert about == (key, "g", held.id)
            after = state(held.id)
            for row in (*before[0], *after[0]):
                del row["time_since_delivered"]
            assert after == before
            with pytest.raises(LeaseLost):
                await held.extend()
        await iterator.aclose()


async def test_settling_at_once(held, key, redis):
    """Of settlements that are made at the same time, one is carried out."""
    results = await asyncio.gather(
        *(ACTIONS[action](held) for action in [*ACTIONS] * 3), return_exceptions=True
    )
    assert sum(isinstance(result, LeaseLost) for result in results) == 11
    copies = redis.xlen(f"{{{key}}}.dead") + redis.xlen(f"{{{key}}}.paid")
    assert copies + redis.zcard(f"{{{key}}}.due:g") <= 1
    assert pending(redis, key) == redis.zcard(f"{{{key}}}.due:g")


async def test_a_handler_that_settles_and_returns(flavour, pool, key, redis, publish, until):
    """Nothing more is done with a message that its handler settled."""
    await publish()
    handled = Recorder(lambda message: message.reject())
    async with running(flavour.consumer(pool, key), handled.handle) as task:
        await until(lambda: redis.xlen(f"{{{key}}}.dead"))
        await until(is_settled(redis, key))
        assert not task.done()
    assert handled.counts == [1]


async def test_a_handler_that_fails_after_settling(
    flavour, pool, key, redis, publish, until, caplog
):
    """What was settled stays so, and the failure is logged."""
    await publish()

    async def fail(message):
        await message.ack()
        raise ValueError("made up")

    handled = Recorder(fail)
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
        await until(lambda: "was settled" in caplog.text)
    assert handled.counts == [1]
    assert redis.exists(f"{{{key}}}.dead", f"{{{key}}}.due:g") == 0


async def test_a_handler_that_settles_twice(flavour, pool, key, redis, publish, until):
    """LeaseLost out of the handler is no failure of the message."""
    await publish()

    async def twice(message):
        await message.ack()
        await message.ack()

    handled = Recorder(twice)
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
    assert handled.counts == [1]
    assert not redis.exists(f"{{{key}}}.dead")


async def test_what_another_program_took(held, key, redis):
    """A message that somebody claimed away is not settled by whom it was taken from."""
    redis.xclaim(key, "g", "thief", 0, [held.id])
    for action in ACTIONS.values():
        with pytest.raises(LeaseLost, match="not this consumer's any more"):
            await action(held)
    assert holders(redis, key)[b"thief"] == 1


# --- Iterating ------------------------------------------------------------------------------


async def test_iterating(flavour, pool, key, redis, publish):
    """Messages come in order, each until the caller settles it."""
    ids = await publish(30)
    got = []
    async with flavour.consumer(pool, key, prefetch=7) as consumer:
        async for message in consumer:
            got.append(message.id)
            await message.ack()
            if len(got) == 30:
                break
        assert got == ids
        assert pending(redis, key) == 0


async def test_leaving_the_loop(flavour, pool, key, redis, publish, until):
    """What was not given yet is handed back without a counted delivery; what was given is held."""
    ids = await publish(10)
    async with flavour.consumer(pool, key, concurrency=10) as consumer:
        async for message in consumer:
            if message.id == ids[1]:
                break
        await until(lambda: holders(redis, key)[PARKED] == 8)
        rows = redis.xpending_range(key, "g", "-", "+", 10, PARKED.decode())
        assert {row["times_delivered"] for row in rows} == {0}
        await message.ack()
        assert pending(redis, key) == 9
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
    assert dict(zip(handled.ids, handled.counts, strict=True)) == (
        {ids[0]: 2} | dict.fromkeys(ids[2:], 1)
    )


async def test_iterating_again(flavour, pool, key, redis, publish, until):
    """A loop that was left can be begun again."""
    ids = await publish(5)
    got = []
    async with flavour.consumer(pool, key) as consumer:
        for _ in range(5):
            async for message in consumer:
                got.append(message.id)
                await message.ack()
                break
        await until(is_settled(redis, key))
    assert sorted(got) == sorted(ids)


async def test_closing_hands_back(flavour, pool, key, redis, publish, until):
    """What was given and not settled comes again after closing, and cannot be settled late."""
    await publish()
    async with flavour.consumer(pool, key) as consumer:
        iterator = aiter(consumer)
        message = await anext(iterator)
    with pytest.raises(LeaseLost):
        await message.ack()
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)
    assert holders(redis, key) == {PARKED: 1}
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
    assert handled.counts == [2]


async def test_stopping_an_iteration(flavour, pool, key, redis, publish):
    """After stop the loop ends, though there is more."""
    ids = await publish(5)
    got = []
    async with flavour.consumer(pool, key, concurrency=5) as consumer:
        async for message in consumer:
            got.append(message.id)
            await message.ack()
            if len(got) == 2:
                consumer.stop()
    assert got == ids[:2]
    assert holders(redis, key) == {PARKED: 3}


async def test_an_iteration_gives_what_cannot_be_decoded(flavour, pool, key, redis, stream):
    """Whoever iterates gets such an entry with its error and its raw fields, and decides."""
    await stream.create_input_stream(key, "g")
    redis.xadd(key, {"n": "x", "_step:t": '{"n":"j"}'})
    async with flavour.consumer(pool, key) as consumer:
        async for message in consumer:
            assert "not valid JSON" in message.error
            assert message.data[b"n"] == b"x"
            await message.reject("garbage")
            break
    assert len(dead_letters(redis, key)) == 1


async def test_several_iterations(flavour, pool, key, redis, publish, until):
    """Iterations of one consumer share its messages."""
    ids = await publish(60)
    got = [[], []]

    async def work(number):
        async for message in consumer:
            got[number].append(message.id)
            # Neither takes all before the other has begun.
            await until(lambda: all(got))
            await message.ack()

    async with flavour.consumer(pool, key) as consumer:
        working = [asyncio.ensure_future(work(number)) for number in range(2)]
        await until(is_settled(redis, key))
        await until(lambda: counted(consumer, acknowledged=60))
        consumer.stop()
        await asyncio.gather(*working)
    assert sorted(got[0] + got[1]) == sorted(ids)


async def test_run_while_iterating(flavour, pool, key, publish):
    """A consumer is either run or iterated over."""
    await publish()
    async with flavour.consumer(pool, key) as consumer:
        async for message in consumer:
            with pytest.raises(ConfigurationError, match="running already"):
                await consumer.run(Recorder().handle)
            await message.ack()
            break
