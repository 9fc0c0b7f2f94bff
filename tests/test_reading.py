"""Reading: waits are bounded, and whatever interrupts a call, nothing is stranded."""

import asyncio
import random
import time

import attrs
import pytest

from step_redis import (
    ConnectionFailedError,
    GroupNotFoundError,
    OperationTimeoutError,
    PoolClosedError,
    PoolExhaustedError,
    StepRedisError,
)


@pytest.fixture
async def through_proxy(flavour, params, proxy):
    """A stream whose connections go through the proxy."""
    behind = attrs.evolve(
        params, host=proxy.host, port=proxy.port, socket_timeout=2, socket_connect_timeout=2
    )
    async with flavour.pool(behind) as pool, flavour.stream(pool) as stream:
        yield stream


async def drain(stream, key, wait_ms=0, count=100):
    """Receive until nothing is left."""
    found = []
    while messages := await stream.receive_message(key, "g", "c", wait_ms, count):
        found += messages
    return found


def is_waiting(redis, key):
    """Whether a reader of the key is blocked on the server."""
    return lambda: any(
        row["cmd"] == "xreadgroup" and "b" in row["flags"] for row in redis.client_list()
    )


async def test_wait_longer_than_socket_timeout(flavour, params, key, redis):
    """A wait of 5 s works with a socket_timeout of 1 s; the message comes when it comes."""
    impatient = attrs.evolve(params, socket_timeout=1)
    async with flavour.pool(impatient) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream(key, "g")
        receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", 5000))
        await asyncio.sleep(2.3)
        assert not receiving.done()
        redis.xadd(key, {"n": "1"})
        [message] = await receiving
        assert message["data"] == {"n": "1"}


async def test_wait_ends(stream, key):
    """Nothing comes: an empty list, not before the time and not much later."""
    await stream.create_input_stream(key, "g")
    for wait_ms in (0, 1, 300, 2300):
        started = time.monotonic()
        assert await stream.receive_message(key, "g", "c", wait_ms) == []
        assert wait_ms / 1000 <= time.monotonic() - started < wait_ms / 1000 + 2


async def test_wait_without_end(stream, key, redis, until):
    """wait_ms=None waits until there is a message."""
    await stream.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", None))
    await until(is_waiting(redis, key))
    redis.xadd(key, {"n": "1"})
    [message] = await receiving
    assert message["data"] == {"n": "1"}


async def test_ttl_is_refreshed_while_waiting(stream, key, redis):
    """A stream with a short TTL lives as long as somebody waits for it, though nothing comes."""
    await stream.create_input_stream(key, "g", 1)
    assert await stream.receive_message(key, "g", "c", 2600, ttl_seconds=1) == []
    assert redis.exists(key)
    assert await stream.receive_message(key, "g", "c", 0, ttl_seconds=50) == []
    assert redis.ttl(key) > 40


async def test_without_ttl_the_stream_expires_under_a_reader(stream, key):
    """What the server was told to drop is gone, and the reader is told."""
    await stream.create_input_stream(key, "g", 1)
    with pytest.raises(GroupNotFoundError):
        await stream.receive_message(key, "g", "c", 8000)


async def test_stream_deleted_under_a_waiting_reader(stream, key, redis, until):
    """A deleted stream is noticed on every server, 6.2 included, and told in one way."""
    await stream.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", None))
    await until(is_waiting(redis, key))
    redis.delete(key)
    with pytest.raises(GroupNotFoundError):
        await receiving


async def test_many_waiting_readers_do_not_delay_a_publish(flavour, params, key):
    """Readers wait on connections of their own: two for commands are enough."""
    few = attrs.evolve(params, max_connections=2, connection_available_timeout=2)
    async with flavour.pool(few) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream(key, "g")
        readers = [
            asyncio.ensure_future(stream.receive_message(key, "g", f"c{n}", None, 1))
            for n in range(30)
        ]
        await asyncio.sleep(0.2)
        sent = {await stream.publish_message(key, {"n": n}) for n in range(30)}
        got = [message["id"] for messages in await asyncio.gather(*readers) for message in messages]
        assert sorted(got) == sorted(sent)


async def test_no_connection_for_a_read(flavour, params, key, redis, until):
    """A read waits for a connection no longer than it was told, and says which limit to raise."""
    one = attrs.evolve(params, max_read_connections=1)
    async with flavour.pool(one) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream(key, "g")
        first = asyncio.ensure_future(stream.receive_message(key, "g", "c", None))
        await until(is_waiting(redis, key))
        started = time.monotonic()
        with pytest.raises(PoolExhaustedError, match="raise max_read_connections"):
            await stream.receive_message(key, "g", "other", 200)
        assert time.monotonic() - started < 1.5
        assert await stream.receive_message(key, "g", "other", 0) == []
        redis.xadd(key, {"n": "1"})
        assert len(await first) == 1


async def test_a_read_waits_for_a_connection_no_longer_than_the_pool_allows(
    flavour, params, key, redis, until
):
    """connection_available_timeout holds for reads too."""
    one = attrs.evolve(params, max_read_connections=1, connection_available_timeout=0.2)
    async with flavour.pool(one) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream(key, "g")
        first = asyncio.ensure_future(stream.receive_message(key, "g", "c", None))
        await until(is_waiting(redis, key))
        with pytest.raises(PoolExhaustedError):
            await asyncio.wait_for(stream.receive_message(key, "g", "other", None), 10)
        redis.xadd(key, {"n": "1"})
        assert len(await first) == 1


async def test_readers_share_too_few_connections(flavour, params, key):
    """More waiting readers than connections take turns; none fails that had its turn."""
    one = attrs.evolve(params, max_read_connections=1)
    async with flavour.pool(one) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream(key, "g")
        readers = [stream.receive_message(key, "g", f"c{n}", 5000) for n in range(2)]
        assert await asyncio.gather(*readers) == [[], []]


async def test_busy_commands_do_not_prolong_a_wait(flavour, params, proxy, key):
    """Though all connections for commands are in use, a call ends a margin after its wait."""
    busy = attrs.evolve(
        params,
        host=proxy.host,
        port=proxy.port,
        socket_timeout=1,
        max_connections=1,
        connection_available_timeout=None,
    )
    async with flavour.pool(busy) as pool, flavour.stream(pool, retry_seconds=0) as stream:
        await stream.create_input_stream(key, "g")
        proxy.hold_replies(b"XADD")
        publishing = [asyncio.ensure_future(stream.publish_message(key, {})) for _ in range(5)]
        await asyncio.sleep(0.05)
        started = time.monotonic()
        with pytest.raises(PoolExhaustedError):
            await stream.receive_message(key, "g", "c", 0)
        assert time.monotonic() - started < 3
        await asyncio.gather(*publishing, return_exceptions=True)


async def test_calls_for_one_consumer_take_turns(stream, key):
    """Concurrent calls of one consumer: each message is handed to exactly one of them."""
    await stream.create_input_stream(key, "g")
    calls = [
        asyncio.ensure_future(stream.receive_message(key, "g", "c", 20_000, 3)) for _ in range(8)
    ]
    ids = [await stream.publish_message(key, {"n": n}) for n in range(40)]
    got = [message["id"] for messages in await asyncio.gather(*calls) for message in messages]
    got += [message["id"] for message in await drain(stream, key)]
    assert sorted(got) == sorted(ids)


async def test_a_turn_is_waited_for_no_longer_than_told(stream, key, redis, until):
    """Behind a call that waits for ever, another one ends in time."""
    await stream.create_input_stream(key, "g")
    first = asyncio.ensure_future(stream.receive_message(key, "g", "c", None))
    await until(is_waiting(redis, key))
    assert await stream.receive_message(key, "g", "c", 100) == []
    assert await stream.receive_message(key, "g", "c", 0) == []
    redis.xadd(key, {"n": "1"})
    assert len(await first) == 1


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
@pytest.mark.parametrize("drain_ms", [0, 200])
async def test_cancelled_300_times(flavour, stream, key, drain_ms):
    """Cancelling a waiting receive at any moment strands nothing: order and counts stay."""
    await stream.create_input_stream(key, "g")
    got = []
    cancelled = 0
    sent = 0
    dice = random.Random(drain_ms)
    while cancelled < 300:
        receiving = asyncio.ensure_future(
            stream.receive_message(key, "g", "c", 1000, dice.choice((1, 5)))
        )
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(dice.random() * 0.002)
            sent += 1
            await stream.publish_message(key, {"n": sent})
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        receiving.cancel()
        try:
            got += await receiving
        except asyncio.CancelledError:
            cancelled += 1
    got += await drain(stream, key, drain_ms)
    assert [message["data"]["n"] for message in got] == list(range(1, sent + 1))
    assert {message["delivery_count"] for message in got} == {1}


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_wait_for_around_receive(flavour, stream, key):
    """asyncio.wait_for cuts calls short; what they got comes with the next ones."""
    await stream.create_input_stream(key, "g")
    got = []

    async def publish():
        for n in range(300):
            await stream.publish_message(key, {"n": n})
            await asyncio.sleep(0.001)

    publishing = asyncio.ensure_future(publish())
    while not publishing.done():
        try:
            got += await asyncio.wait_for(stream.receive_message(key, "g", "c", 500, 10), 0.003)
        except TimeoutError:
            continue
    got += await drain(stream, key)
    assert [message["data"]["n"] for message in got] == list(range(300))


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_read_left_behind_answers_a_call_that_does_not_wait(
    flavour, stream, key, redis, until
):
    """After a cancel, a call with wait_ms=0 returns what was in the stream before it."""
    await stream.create_input_stream(key, "g")
    for n in range(30):
        receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", 60_000))
        await until(is_waiting(redis, key))
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        assert await stream.receive_message(key, "g", "c", 0) == []
        redis.xadd(key, {"n": n})
        [message] = await stream.receive_message(key, "g", "c", 0)
        assert message["data"] == {"n": str(n)}


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_ttl_is_refreshed_behind_a_read_left_behind(flavour, stream, key, redis, until):
    """A call that waits for what an interrupted one began keeps its own TTL alive."""
    await stream.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", 60_000))
    await until(is_waiting(redis, key))
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    await stream.set_ttl(key, 1)
    assert await stream.receive_message(key, "g", "c", 1600, ttl_seconds=1) == []
    assert redis.exists(key)


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_pending_does_not_double_what_a_read_left_behind_gets(
    flavour, stream, key, redis, until
):
    """receive_pending hands a message over that a cancelled read is getting: it comes once."""
    await stream.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", 60_000))
    await until(is_waiting(redis, key))
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    redis.xadd(key, {"n": "1"})
    [message] = await stream.receive_pending(key, "g", "c")
    assert message["data"] == {"n": "1"}
    assert await drain(stream, key, 100) == []


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_failure_of_a_read_left_behind(flavour, through_proxy, proxy, key, redis, until):
    """A read that fails after its caller went away hurts nobody; what it took comes next."""
    await through_proxy.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(through_proxy.receive_message(key, "g", "c", 60_000))
    await until(is_waiting(redis, key))
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    proxy.drop_replies(b"XREADGROUP", times=0)
    proxy.cut_client_side()
    redis.xadd(key, {"n": "1"})
    [message] = await through_proxy.receive_message(key, "g", "c", 5000)
    assert (message["data"], message["delivery_count"]) == ({"n": "1"}, 1)
    proxy.close_held()


async def test_closing_a_stream_under_a_waiting_call(flavour, pool, key, redis, until):
    """The waiting call is told, and so are later ones."""
    stream = flavour.stream(pool)
    await stream.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", None))
    await until(is_waiting(redis, key))
    await stream.aclose()
    with pytest.raises(PoolClosedError, match="stream was closed"):
        await receiving
    for call in (stream.receive_message(key, "g", "c"), stream.publish_message(key, {})):
        with pytest.raises(PoolClosedError, match="stream is closed"):
            await call


@pytest.mark.parametrize("received", [0, 1, 4, 60, 120])
async def test_connection_cut_while_the_reply_is_under_way(
    through_proxy, proxy, key, redis, received
):
    """What the reply held comes with the next call, in order, with a count of 1."""
    await through_proxy.create_input_stream(key, "g")
    for n in range(3):
        redis.xadd(key, {"n": n})
    proxy.cut_reply_after(received, b"XREADGROUP")
    with pytest.raises(ConnectionFailedError, match="come with the next receive_message") as caught:
        await through_proxy.receive_message(key, "g", "c", 5000, 2)
    assert caught.value.outcome_unknown
    redis.xadd(key, {"n": 3})
    got = await drain(through_proxy, key, 100)
    assert [(message["data"]["n"], message["delivery_count"]) for message in got] == [
        (str(n), 1) for n in range(4)
    ]


async def test_reply_that_does_not_come(through_proxy, proxy, key, redis):
    """A reply held back ends the call in time, and what it holds is not lost."""
    await through_proxy.create_input_stream(key, "g")
    redis.xadd(key, {"n": 0})
    proxy.hold_replies(b"XREADGROUP")
    with pytest.raises(OperationTimeoutError):
        await through_proxy.receive_message(key, "g", "c", 300)
    proxy.heal()
    assert len(await drain(through_proxy, key, 100)) == 1


async def test_dead_connection_goes_on_taking_messages(through_proxy, proxy, key, redis, until):
    """The server has not noticed that a reader's connection is gone: what it takes is fetched."""
    await through_proxy.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(through_proxy.receive_message(key, "g", "c", None, 10))
    await until(is_waiting(redis, key))
    proxy.cut_client_side()
    with pytest.raises(ConnectionFailedError):
        await receiving
    assert proxy.held
    got = []
    for n in range(20):
        redis.xadd(key, {"n": n})
        got += await through_proxy.receive_message(key, "g", "c", 3000, 10)
    got += await drain(through_proxy, key, 100)
    assert sorted(int(message["data"]["n"]) for message in got) == list(range(20))
    assert {message["delivery_count"] for message in got} == {1}
    proxy.close_held()


async def test_dead_connection_that_takes_a_message_late(through_proxy, proxy, key, redis, until):
    """A call that already waits on a new connection finds what the dead one took meanwhile."""
    await through_proxy.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(through_proxy.receive_message(key, "g", "c", None))
    await until(is_waiting(redis, key))
    proxy.cut_client_side()
    with pytest.raises(ConnectionFailedError):
        await receiving
    again = asyncio.ensure_future(through_proxy.receive_message(key, "g", "c", 10_000))
    await asyncio.sleep(0.3)
    redis.xadd(key, {"n": "1"})
    [message] = await again
    assert (message["data"], message["delivery_count"]) == ({"n": "1"}, 1)
    assert await drain(through_proxy, key, 100) == []
    proxy.close_held()


async def test_messages_of_before_are_not_doubled_by_recovery(through_proxy, proxy, key, redis):
    """What the caller holds unacknowledged is not handed over again after a lost reply."""
    await through_proxy.create_input_stream(key, "g")
    for n in range(10):
        redis.xadd(key, {"n": n})
    got = await through_proxy.receive_message(key, "g", "c", count=5)
    proxy.drop_replies(b"XREADGROUP")
    with pytest.raises(ConnectionFailedError):
        await through_proxy.receive_message(key, "g", "c", 1000, 3)
    got += await drain(through_proxy, key)
    assert [message["data"]["n"] for message in got] == [str(n) for n in range(10)]


async def test_recovery_leaves_deleted_entries_out(through_proxy, proxy, key, redis):
    """What a lost read took and was deleted since is acknowledged away."""
    await through_proxy.create_input_stream(key, "g")
    ids = [redis.xadd(key, {"n": n}) for n in range(150)]
    proxy.drop_replies(b"XREADGROUP")
    with pytest.raises(ConnectionFailedError):
        await through_proxy.receive_message(key, "g", "c", 0, 150)
    redis.xdel(key, *ids[:140])
    got = await drain(through_proxy, key)
    assert [message["id"].encode() for message in got] == ids[140:]
    assert redis.xpending(key, "g")["pending"] == 10


async def test_group_lost_during_recovery(through_proxy, proxy, key, redis):
    """A group that vanished is told as such; a new one is read from its start."""
    await through_proxy.create_input_stream(key, "g")
    redis.xadd(key, {"n": 0})
    proxy.drop_replies(b"XREADGROUP")
    with pytest.raises(ConnectionFailedError):
        await through_proxy.receive_message(key, "g", "c")
    redis.delete(key)
    with pytest.raises(GroupNotFoundError):
        await through_proxy.receive_message(key, "g", "c")
    await through_proxy.create_input_stream(key, "g")
    redis.xadd(key, {"n": 1}, id="1-1")
    [message] = await through_proxy.receive_message(key, "g", "c")
    assert message["data"] == {"n": "1"}


async def test_group_set_back(stream, key, redis):
    """A group set back delivers again, also ids that were seen before."""
    await stream.create_input_stream(key, "g")
    ids = [redis.xadd(key, {"n": n}) for n in range(3)]
    await stream.receive_message(key, "g", "c", count=3)
    redis.xgroup_setid(key, "g", ids[0])
    again = await stream.receive_message(key, "g", "c", count=3)
    assert [message["id"].encode() for message in again] == ids[1:]


async def test_killed_connection(stream, key, redis, until):
    """CLIENT KILL under a waiting reader: one error, then everything flows on."""
    await stream.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", None))
    await until(is_waiting(redis, key))
    for row in redis.client_list():
        if row["cmd"] == "xreadgroup":
            redis.client_kill_filter(_id=row["id"])
    with pytest.raises(ConnectionFailedError):
        await receiving
    redis.xadd(key, {"n": "1"})
    [message] = await stream.receive_message(key, "g", "c", 5000)
    assert message["delivery_count"] == 1


async def test_unblocked_client(stream, key, redis, until):
    """CLIENT UNBLOCK makes an empty reply before the time: the call waits on."""
    await stream.create_input_stream(key, "g")
    receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", 10_000))
    await until(is_waiting(redis, key))
    for row in redis.client_list():
        if row["cmd"] == "xreadgroup":
            redis.client_unblock(row["id"])
    redis.xadd(key, {"n": "1"})
    assert len(await receiving) == 1


async def test_frozen_server(flavour, private_server, key, until):
    """A server that stops answering is noticed a margin after the wait; nothing is lost by it."""
    server = private_server()
    params = flavour.api.StepRedisPoolParams(host=server.host, port=server.port, socket_timeout=1)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream(key, "g")
        with server.client() as client:
            receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", 400, 5))
            await until(is_waiting(client, key))
            server.pause()
            started = time.monotonic()
            with pytest.raises(OperationTimeoutError) as caught:
                await receiving
            assert caught.value.outcome_unknown
            assert time.monotonic() - started < 5
            server.resume()
            for n in range(10):
                client.xadd(key, {"n": n})
            got = await drain(stream, key, 100)
            assert sorted(int(message["data"]["n"]) for message in got) == list(range(10))


async def test_paused_clients(flavour, private_server, key):
    """CLIENT PAUSE delays messages and loses none."""
    server = private_server()
    params = flavour.api.StepRedisPoolParams(host=server.host, port=server.port, socket_timeout=1)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream(key, "g")
        ids = [await stream.publish_message(key, {"n": n}) for n in range(3)]
        with server.client() as client:
            client.execute_command("CLIENT", "PAUSE", 1500)
            got = []
            while len(got) < 3:
                try:
                    got += await stream.receive_message(key, "g", "c", 100, 2)
                except OperationTimeoutError:
                    continue
        assert [message["id"] for message in got] == ids
        assert {message["delivery_count"] for message in got} == {1}


async def test_restarted_server(flavour, private_server, key, until):
    """A server that restarts with its data: an error, then all unread messages."""
    server = private_server("--appendonly", "yes", "--appendfsync", "always")
    params = flavour.api.StepRedisPoolParams(host=server.host, port=server.port, socket_timeout=2)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream(key, "g")
        receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", None))
        with server.client() as client:
            await until(is_waiting(client, key))
        server.kill()
        with pytest.raises(StepRedisError):
            await receiving
        await asyncio.to_thread(server.restart)
        ids = [await stream.publish_message(key, {"n": n}) for n in range(5)]
        got = await drain(stream, key, 200)
        assert [message["id"] for message in got] == ids
