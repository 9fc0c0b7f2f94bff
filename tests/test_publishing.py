"""Publishing under faults without repeating, and what holds with it too: connections, limits."""

import asyncio
import itertools
from unittest.mock import Mock

import attrs
import pytest

from step_redis import (
    ConnectionFailedError,
    OperationTimeoutError,
    PoolExhaustedError,
    StepRedisError,
)
from step_redis._backend import threads


@pytest.fixture
async def through_proxy(flavour, params, proxy):
    """A stream whose connections go through the proxy, and which repeats nothing."""
    behind = attrs.evolve(
        params, host=proxy.host, port=proxy.port, socket_timeout=1, socket_connect_timeout=1
    )
    async with flavour.pool(behind) as pool, flavour.stream(pool, retry_seconds=0) as stream:
        yield stream


async def test_lost_reply_is_told_and_not_repeated(through_proxy, proxy, key, redis):
    """The entry was written, once; the error says that it may have been."""
    await through_proxy.publish_message(key, {"n": 0})
    proxy.drop_replies(b"XADD")
    with pytest.raises(ConnectionFailedError, match="the entry may have been written") as caught:
        await through_proxy.publish_message(key, {"n": 1})
    assert caught.value.outcome_unknown
    assert caught.value.stream == key
    assert redis.xlen(key) == 2
    await through_proxy.publish_message(key, {"n": 2})
    assert [fields[b"n"] for _, fields in redis.xrange(key)] == [b"0", b"1", b"2"]


async def test_reply_cut_in_the_middle(through_proxy, proxy, key, redis):
    """Half a reply is none."""
    proxy.cut_reply_after(5, b"XADD")
    with pytest.raises(ConnectionFailedError) as caught:
        await through_proxy.publish_message(key, {"n": 1})
    assert caught.value.outcome_unknown
    assert redis.xlen(key) == 1


async def test_lost_request_is_told_as_unknown(through_proxy, proxy, key, redis):
    """Nobody can know that a request was lost on the way: it is told, and not repeated."""
    proxy.drop_requests(b"XADD")
    with pytest.raises(ConnectionFailedError) as caught:
        await through_proxy.publish_message(key, {"n": 1})
    assert caught.value.outcome_unknown
    assert redis.xlen(key) == 0


async def test_reply_that_does_not_come_in_time(through_proxy, proxy, key, redis):
    """A late reply is an error in time, and never taken for the answer to something else."""
    proxy.hold_replies(b"XADD")
    with pytest.raises(OperationTimeoutError, match="may have been written") as caught:
        await through_proxy.publish_message(key, {"n": 1})
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.outcome_unknown
    proxy.release_replies()
    second = await through_proxy.publish_message(key, {"n": 2})
    assert redis.xrevrange(key, count=1)[0][0].decode() == second


async def test_a_server_away_for_a_moment_is_waited_for(through_proxy, proxy, key, redis, until):
    """A connection that fails before anything was sent is tried again."""
    await through_proxy.ping()
    proxy.refuse()
    proxy.cut()
    await asyncio.sleep(0.01)  # the event loop hears of it
    publishing = asyncio.ensure_future(through_proxy.publish_message(key, {"n": 1}))
    await asyncio.sleep(0.1)  # long enough for an attempt to be refused
    assert not publishing.done()
    proxy.accept()
    await publishing
    assert redis.xlen(key) == 1


async def test_a_server_away_for_good(through_proxy, proxy, key):
    """When the time to connect is over, the error says that nothing was written."""
    proxy.refuse()
    with pytest.raises(ConnectionFailedError, match=r"cannot connect to .*Check host") as caught:
        await through_proxy.publish_message(key, {"n": 1})
    assert not caught.value.outcome_unknown
    assert "may have been" not in str(caught.value)


async def test_a_connection_that_the_server_closed_while_idle(flavour, params, key, redis, until):
    """A connection closed behind our back is noticed before it is used."""
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.publish_message(key, {"n": 1})
        killed = [row["id"] for row in redis.client_list() if row["cmd"] in ("eval", "evalsha")]
        for client_id in killed:
            redis.client_kill_filter(_id=client_id)
        assert killed
        await until(lambda: not {row["id"] for row in redis.client_list()} & set(killed))
        await asyncio.sleep(0.01)  # the event loop hears of it
        await stream.publish_message(key, {"n": 2})
    assert redis.xlen(key) == 2


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_cancelled_publish_leaves_no_reply_behind(flavour, params, key, redis):
    """After a cancel at any moment, the next publish gets its own id and not another's."""
    single = attrs.evolve(params, max_connections=1)
    async with flavour.pool(single) as pool, flavour.stream(pool) as stream:
        for n in range(200):
            task = asyncio.ensure_future(stream.publish_message(key, {"n": f"cancelled {n}"}))
            for _ in range(n % 12):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            message_id = await stream.publish_message(key, {"n": str(n)})
            [(_, fields)] = redis.xrange(key, message_id, message_id)
            assert fields == {b"n": b"%d" % n}


async def test_exhausted_pool(flavour, params, proxy, key, until):
    """All connections in use is an error of its own, with the way out; nothing was written."""
    single = attrs.evolve(
        params,
        host=proxy.host,
        port=proxy.port,
        max_connections=1,
        connection_available_timeout=0.2,
    )
    async with flavour.pool(single) as pool, flavour.stream(pool) as stream:
        await stream.ping()
        proxy.hold_replies(key.encode())
        first = asyncio.ensure_future(stream.publish_message(key, {"n": 1}))
        await until(lambda: proxy.held_replies)
        with pytest.raises(PoolExhaustedError, match="raise max_connections") as caught:
            await stream.publish_message(key, {"n": 2})
        assert not caught.value.outcome_unknown
        proxy.release_replies()
        await first


async def test_without_a_time_limit_a_free_connection_is_waited_for(flavour, params, key, redis):
    """connection_available_timeout=None waits for ever: many publishers share one connection."""
    single = attrs.evolve(params, max_connections=1, connection_available_timeout=None)
    async with flavour.pool(single) as pool, flavour.stream(pool) as stream:
        await asyncio.gather(*(stream.publish_message(key, {"n": n}) for n in range(100)))
    assert redis.xlen(key) == 100


async def test_killed_server(flavour, private_server, key):
    """A server killed amid publishes: what returned an id is there, once."""
    server = private_server("--appendonly", "yes", "--appendfsync", "always")
    params = flavour.api.StepRedisPoolParams(
        host=server.host, port=server.port, socket_timeout=2, socket_connect_timeout=10
    )
    written: list[str] = []
    unknown = 0

    async def publish(stream, worker):
        nonlocal unknown
        for n in range(200):
            while True:
                try:
                    await stream.publish_message(key, {"n": f"{worker}:{n}"})
                    written.append(f"{worker}:{n}")
                except StepRedisError as error:
                    if not error.outcome_unknown:
                        continue  # not written for certain, as by a server that loads its data
                    unknown += 1
                break

    async with flavour.pool(params) as pool, flavour.stream(pool, retry_seconds=0) as stream:
        workers = [asyncio.ensure_future(publish(stream, worker)) for worker in range(4)]
        while len(written) < 100:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(server.restart)
        await asyncio.gather(*workers)
    with server.client() as client:
        stored = [fields[b"n"].decode() for _, fields in client.xrange(key)]
    assert len(stored) == len(set(stored))
    assert set(written) <= set(stored)
    assert len(written) + unknown == 800
    assert unknown <= 4


@pytest.mark.parametrize("flavour", ["threads"], indirect=True)
async def test_any_exception_amid_a_call_ends_its_connection(flavour, params, monkeypatch, key):
    """What a signal handler raises may be an OSError: the reply it leaves is nobody's answer."""
    single = attrs.evolve(params, max_connections=1)
    async with flavour.pool(single) as pool, flavour.stream(pool, retry_seconds=0) as stream:
        await stream.ping()
        with monkeypatch.context() as alarmed:
            alarmed.setattr(threads, "read_reply", Mock(side_effect=TimeoutError("alarm")))
            with pytest.raises(OperationTimeoutError) as caught:
                await stream.publish_message(key, {"n": 1})
        assert caught.value.outcome_unknown
        await stream.create_input_stream(key, "g", start_id="$")
        second = await stream.publish_message(key, {"n": 2})
        [message] = await stream.receive_message(key, "g", "c")
        assert message["id"] == second


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_a_cancel_is_never_swallowed(flavour, params, key):
    """A call that is cancelled before it has its result ends so, at whatever step it is."""
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.publish_message(key, {"n": 1})
        for steps in range(40):
            publishing = asyncio.ensure_future(stream.publish_message(key, {"n": 2}))
            for _ in range(steps % 20):
                await asyncio.sleep(0)
            if publishing.done():
                continue
            publishing.cancel()
            [outcome] = await asyncio.gather(publishing, return_exceptions=True)
            assert isinstance(outcome, asyncio.CancelledError), steps


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_a_batch_without_end_is_cancelled(flavour, params, key, redis, until):
    """One cancel ends it at once, and the first ones of its messages are there."""
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        endless = ({"n": str(n)} for n in itertools.count())
        publishing = asyncio.ensure_future(stream.publish_messages(key, endless))
        await until(lambda: redis.xlen(key) > 2000)
        publishing.cancel()
        [outcome] = await asyncio.gather(publishing, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError)
        written = [int(fields[b"n"]) for _, fields in redis.xrange(key)]
        assert written == list(range(len(written)))
        await stream.publish_message(key, {})
