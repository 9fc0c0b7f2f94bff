"""Lost replies and broken connections: nothing twice to a running handler, nothing lost."""

import asyncio

import pytest

from consuming import Recorder, counted, holders, is_settled, members, pending, running
from step_redis import LeaseLost, RetryPolicy
from step_redis.scripts import script


async def test_the_reply_to_ack_is_lost(flavour, behind, key, redis, publish, proxy, until):
    """Ack finds out that it took effect, and returns; the consumer goes on under a fresh name."""
    await publish(2)
    async with flavour.consumer(behind, key) as consumer:
        iterator = aiter(consumer)
        first = await anext(iterator)
        [before] = members(redis, key)
        proxy.drop_replies(first.id.encode())
        await first.ack()
        assert pending(redis, key) == 1
        second = await anext(iterator)
        assert second.delivery_count == 1
        await second.ack()
        assert pending(redis, key) == 0
        [after] = members(redis, key)
        assert before != after
        assert (await consumer.health()).counters.moves == 1
        await iterator.aclose()


async def test_the_request_to_ack_is_lost(flavour, behind, key, redis, publish, proxy, until):
    """Ack finds out that it did not take effect, and is sent again."""
    await publish()
    async with flavour.consumer(behind, key) as consumer:
        iterator = aiter(consumer)
        message = await anext(iterator)
        proxy.drop_requests(message.id.encode())
        await message.ack()
        assert pending(redis, key) == 0
        await iterator.aclose()


@pytest.mark.parametrize("fault", ["drop_replies", "drop_requests"])
@pytest.mark.parametrize("action", ["nack", "reject", "forward"])
async def test_other_settlements(flavour, behind, key, redis, publish, proxy, until, action, fault):
    """So do the others: whatever was lost, it is done once."""
    await publish()
    target = f"{{{key}}}.paid"
    # What is lost is not the reply that the server does not have the script.
    redis.script_load(script("copy").text)
    async with flavour.consumer(behind, key) as consumer:
        iterator = aiter(consumer)
        message = await anext(iterator)
        getattr(proxy, fault)(message.id.encode())
        if action == "forward":
            written = await message.forward(target, {"n": 1})
            assert (written is None) == (fault == "drop_replies")
        else:
            await (message.nack(1000) if action == "nack" else message.reject())
        await iterator.aclose()
    found = redis.zcard(f"{{{key}}}.due:g"), redis.xlen(f"{{{key}}}.dead"), redis.xlen(target)
    expected = {"nack": (1, 0, 0), "reject": (0, 1, 0), "forward": (0, 0, 1)}
    assert found == expected[action]
    assert pending(redis, key) == found[0]


async def test_the_reply_to_a_read_is_lost(flavour, behind, key, redis, publish, proxy, until):
    """What a read took whose reply is lost comes all the same, once, as its first delivery."""
    handled = Recorder()
    consumer = flavour.consumer(behind, key)
    async with running(consumer, handled.handle):
        await until(lambda: members(redis, key))
        proxy.drop_replies(b"XREADGROUP", after=1)
        ids = await publish(20)
        await until(is_settled(redis, key))
        await until(lambda: counted(consumer, acknowledged=20))
    assert sorted(handled.ids) == sorted(ids)
    assert handled.counts == [1] * 20


async def test_nothing_comes_twice_to_a_running_handler(
    flavour, behind, key, redis, publish, proxy, until
):
    """Whatever replies are lost while handlers run, each message is handled once."""
    ids = await publish(60)

    async def work(message):
        await asyncio.sleep(0.02)

    handled = Recorder(work)
    consumer = flavour.consumer(behind, key, concurrency=4, prefetch=10)
    async with running(consumer, handled.handle):
        await until(lambda: len(handled.ids) >= 10)
        for fault in (proxy.drop_replies, proxy.drop_requests, proxy.drop_replies):
            for matching in (b"EVALSHA", b"XREADGROUP"):
                fault(matching, after=2)
            await asyncio.sleep(0.1)
        proxy.cut()
        await until(is_settled(redis, key), timeout=20)
        await until(lambda: counted(consumer, acknowledged=60))
    assert sorted(handled.ids) == sorted(ids)


async def test_every_connection_is_cut_again_and_again(
    flavour, behind, key, redis, publish, proxy, until
):
    """Cuts at random moments: all is handled, and nothing twice as long as the lease lives.

    A delivery that nobody saw may count: a read that was cut off on its way may still take some.
    """
    ids = await publish(100)

    async def work(message):
        await asyncio.sleep(0.005)

    handled = Recorder(work)
    consumer = flavour.consumer(behind, key, concurrency=3, prefetch=10)
    async with running(consumer, handled.handle):
        for _ in range(10):
            await asyncio.sleep(0.05)
            proxy.cut()
        await until(is_settled(redis, key), timeout=20)
        await until(lambda: counted(consumer, acknowledged=100))
        assert (await consumer.health()).counters.leases_lost == 0
    assert sorted(handled.ids) == sorted(ids)


async def test_a_read_that_the_server_goes_on_with(
    flavour, behind, key, redis, publish, proxy, until
):
    """A dead connection whose read still takes messages costs none of them."""
    handled = Recorder()
    consumer = flavour.consumer(behind, key)
    async with running(consumer, handled.handle):
        await until(lambda: members(redis, key))
        await publish()
        await until(lambda: handled.ids)
        proxy.hold_closes()
        proxy.cut_client_side()
        ids = await publish(20)
        await until(is_settled(redis, key), timeout=20)
        proxy.close_held()
    assert sorted(handled.ids[1:]) == sorted(ids)


async def test_replies_come_late(flavour, behind, key, redis, publish, proxy, until):
    """Replies that come after the lease ended count for nothing; the messages come again."""
    await publish(3)
    handled = Recorder()
    consumer = flavour.consumer(behind, key, lease_seconds=1)
    async with running(consumer, handled.handle):
        await until(is_settled(redis, key))
        proxy.hold_replies()
        ids = await publish(3)
        await until(lambda: proxy.held_replies >= 3)
        await asyncio.sleep(2)
        proxy.release_replies()
        await until(is_settled(redis, key), timeout=20)
    assert set(ids) <= set(handled.ids)


async def test_the_lease_ends_while_the_reply_is_lost(
    flavour, behind, key, redis, publish, proxy, until
):
    """If nothing can be found out before the lease ends, LeaseLost says that it is unknown."""
    await publish()
    async with flavour.consumer(behind, key, lease_seconds=1) as consumer:
        iterator = aiter(consumer)
        message = await anext(iterator)
        proxy.hold_replies(message.id.encode())
        acknowledging = asyncio.ensure_future(message.ack())
        await until(lambda: proxy.held_replies)
        proxy.drop_requests(b"EVAL", times=None)
        with pytest.raises(LeaseLost, match="may have been settled, or not") as caught:
            await acknowledging
        assert caught.value.outcome_unknown
        proxy.heal()
        await iterator.aclose()


async def test_joining_is_interrupted(flavour, behind, key, redis, publish, proxy, until):
    """The reply to joining, and to moving, may be lost as well, again and again."""
    proxy.drop_replies(b"EVAL", times=6)
    ids = await publish(5)
    handled = Recorder()
    async with running(flavour.consumer(behind, key, lease_seconds=2), handled.handle):
        await until(is_settled(redis, key), timeout=20)
        proxy.drop_replies(b"EVAL", times=6)
        ids += await publish(5)
        await until(is_settled(redis, key), timeout=20)
        # Names that were joined under and not heard of are removed when their leases end.
        await until(lambda: len(members(redis, key)) == 1)
    assert set(handled.ids) == set(ids)


async def test_a_settlement_survives_a_restarted_connection(
    flavour, behind, key, redis, publish, proxy, until, release
):
    """A handler that ends while the server is away is acknowledged when it is back."""
    await publish()
    handled = Recorder(lambda _: release.wait())
    async with running(flavour.consumer(behind, key), handled.handle):
        await until(lambda: handled.ids)
        proxy.refuse()
        proxy.cut()
        release.set()
        await asyncio.sleep(1)
        assert pending(redis, key) == 1
        proxy.accept()
        await until(is_settled(redis, key))
    assert handled.counts == [1]


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_a_cancelled_settlement_is_carried_out(
    flavour, behind, key, redis, publish, proxy, until
):
    """What a cancelled caller had begun to acknowledge is acknowledged."""
    await publish()
    async with flavour.consumer(behind, key) as consumer:
        iterator = aiter(consumer)
        message = await anext(iterator)
        proxy.hold_replies(message.id.encode())
        acknowledging = asyncio.ensure_future(message.ack())
        await until(lambda: proxy.held_replies)
        acknowledging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acknowledging
        proxy.release_replies()
        await until(lambda: holders(redis, key) and pending(redis, key) == 0)
        with pytest.raises(LeaseLost):
            await message.nack()
        await iterator.aclose()


async def test_retries_survive_lost_replies(flavour, behind, key, redis, publish, proxy, until):
    """Failed messages whose parking is unanswered come again as often as the policy says."""
    await publish(5)

    async def fail(message):
        raise ValueError("made up")

    handled = Recorder(fail)
    retry = RetryPolicy(max_deliveries=3, delays=0.05)
    async with running(flavour.consumer(behind, key, retry=retry), handled.handle):
        proxy.drop_replies(b"failed", times=3, after=1)
        await until(is_settled(redis, key), timeout=20)
    # A read that was under way under the former name may have taken one more delivery.
    assert sorted(map(handled.ids.count, set(handled.ids))) == [3] * 5
    assert redis.xlen(f"{{{key}}}.dead") == 5
