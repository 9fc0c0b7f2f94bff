"""The pool: sockets, redis-py's pools, and connections that are never lost."""

import asyncio
import contextlib
import inspect
import socket

import attrs
import pytest
from redis.asyncio import BlockingConnectionPool

from step_redis import (
    ConnectionFailedError,
    PoolClosedError,
    PoolExhaustedError,
    StepRedisError,
)
from step_redis._backend import aio, threads
from step_redis.place import Place


async def maybe(value):
    """Await what the adapter made awaitable."""
    return await value if inspect.isawaitable(value) else value


async def socket_of(flavour, pool):
    """Return a socket of one of the pool's connections."""
    inner = pool.get_pool()
    if flavour.name == "asyncio":
        connection = await inner.get_connection()
        found = connection._writer.get_extra_info("socket")
        await inner.release(connection)
    else:
        inner = inner._blocking if hasattr(inner, "_blocking") else inner
        connection = inner.get_connection()
        found = connection._sock
        inner.release(connection)
    return found


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has this option")
async def test_keepalive_reaches_the_socket(flavour, params):
    """What the parameters say of keepalive is set on the socket."""
    wanted = attrs.evolve(params, socket_keep_idle=41, socket_keep_interval=7, socket_keep_cnt=4)
    async with flavour.pool(wanted) as pool:
        sock = await socket_of(flavour, pool)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 41
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 69_000


async def test_keepalive_can_be_turned_off(flavour, params):
    """socket_keep_alive=False leaves the socket alone."""
    async with flavour.pool(attrs.evolve(params, socket_keep_alive=False)) as pool:
        sock = await socket_of(flavour, pool)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_get_pool_is_for_commands_of_ones_own(flavour, pool, key):
    """get_pool() is redis-py's blocking pool, which any redis-py client can use."""
    inner = pool.get_pool()
    plain = getattr(inner, "_blocking", inner)
    assert isinstance(plain, flavour.redis.BlockingConnectionPool)
    client = flavour.adapt(flavour.redis.Redis(connection_pool=plain))
    assert await client.set(key, "1") is True
    assert await client.get(key) == b"1"


async def test_db_and_protocol(flavour, params, key, redis):
    """The parameters' database is the one that is used."""
    async with flavour.pool(attrs.evolve(params, db=1)) as pool, flavour.stream(pool) as stream:
        await stream.publish_message(key, {})
        assert not redis.exists(key)
        assert await stream.set_ttl(key, 1)


@pytest.mark.parametrize("decode_responses", [False, True])
@pytest.mark.parametrize("kind", ["ConnectionPool", "BlockingConnectionPool"])
async def test_a_pool_of_redis_py(flavour, server, key, kind, decode_responses):
    """A stream works on a plain redis-py pool of its flavour, whatever it decodes."""
    plain = getattr(flavour.redis, kind).from_url(
        server.url, max_connections=2, decode_responses=decode_responses
    )
    async with flavour.stream(plain) as stream:
        await stream.create_input_stream(key, "g")
        receiving = asyncio.ensure_future(stream.receive_message(key, "g", "c", 20_000))
        await stream.publish_message(key, {"n": 1, "b": b"\xff"})
        [message] = await receiving
        assert message["data"] == {"n": 1, "b": b"\xff"}
        assert await stream.acknowledge_message(key, "g", message["id"]) == 1
    if flavour.name == "asyncio":
        await plain.aclose()
    else:
        plain.close()


async def test_exhausted_pool_of_redis_py(flavour, server, key):
    """A redis-py pool that has no connection left is told as that too."""
    for plain in (
        flavour.redis.ConnectionPool.from_url(server.url, max_connections=1),
        flavour.redis.BlockingConnectionPool.from_url(server.url, max_connections=1, timeout=0.1),
    ):
        got = plain.get_connection()
        connection = await got if flavour.name == "asyncio" else got
        async with flavour.stream(plain) as stream:
            with pytest.raises(PoolExhaustedError):
                await stream.publish_message(key, {})
        released = plain.release(connection)
        if flavour.name == "asyncio":
            await released
            await plain.aclose()
        else:
            plain.close()


async def test_release_that_is_cancelled_loses_no_connection(server):
    """A cancel while redis-py's pool is locked does not cost it a connection."""
    pool = BlockingConnectionPool.from_url(server.url, max_connections=1)
    for _ in range(20):
        connection = await asyncio.wait_for(aio.take_connection(pool), 5)
        async with pool._condition:
            giving = asyncio.ensure_future(aio.give_connection(pool, connection))
            await asyncio.sleep(0)
            giving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await giving
    await pool.aclose()


async def test_cancelled_waiter_wakes_another(server):
    """A waiter that is cancelled as it is woken does not leave the next one asleep."""
    pool = BlockingConnectionPool.from_url(server.url, max_connections=1, timeout=None)
    for _ in range(20):
        connection = await aio.take_connection(pool)
        first, second = (asyncio.ensure_future(aio.take_connection(pool)) for _ in range(2))
        await asyncio.sleep(0.001)
        await aio.give_connection(pool, connection)
        first.cancel()
        await aio.give_connection(pool, await asyncio.wait_for(second, 5))
    await pool.aclose()


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_random_cancels_lose_no_connection(flavour, params, key):
    """However often calls are cancelled, all connections stay usable, and nobody sleeps on."""
    few = attrs.evolve(params, max_connections=3, connection_available_timeout=None)
    async with flavour.pool(few) as pool, flavour.stream(pool) as stream:
        for turn in range(150):
            tasks = [asyncio.ensure_future(stream.publish_message(key, {})) for _ in range(8)]
            for _ in range(turn % 15):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        await asyncio.gather(*(stream.publish_message(key, {}) for _ in range(9)))


async def test_places_go_by_turn(flavour):
    """First come, first served; who waits too long leaves the queue; what is given back is free."""
    places = flavour.adapt(flavour.backend.Places(1))
    first, second, third = Place(), Place(), Place()
    assert await places.take(first, 0)
    assert not await places.take(second, 0.05)
    taking = [asyncio.ensure_future(places.take(second, 10))]
    await asyncio.sleep(0.05)
    taking.append(asyncio.ensure_future(places.take(third, 10)))
    await asyncio.sleep(0.05)
    await maybe(places.give(first))
    assert await taking[0]
    await asyncio.sleep(0.05)
    assert not taking[1].done()
    await maybe(places.give(first))  # not held any more: nothing happens
    await maybe(places.give(second))
    assert await taking[1]


def test_a_place_that_nobody_holds_any_more_is_free():
    """An interrupt just before a place is given back costs none (blocking flavour)."""
    places = threads.Places(1)
    lost = Place()
    assert places.take(lost, 0)
    assert not places.take(Place(), 0.01)
    del lost
    assert places.take(Place(), 5)


async def test_closing_under_load(flavour, params, key, redis):
    """Calls that are under way end with errors of ours, and no connection stays open."""
    name = f"closing-{flavour.name}"
    few = attrs.evolve(params, max_connections=3)
    for _ in range(10):
        async with flavour.pool(few) as pool:
            stream = flavour.stream(pool)
            plain = getattr(pool.get_pool(), "_blocking", pool.get_pool())
            plain.connection_kwargs["client_name"] = name

            async def publish(stream=stream):
                with pytest.raises(StepRedisError) as caught:  # noqa: PT012 - one of them raises
                    while True:
                        await stream.publish_message(key, {"n": 1}, 100)
                return caught.type

            publishing = [asyncio.ensure_future(publish()) for _ in range(8)]
            await asyncio.sleep(0.02)
            await pool.aclose()
            kinds = await asyncio.wait_for(asyncio.gather(*publishing), 10)
            assert set(kinds) <= {PoolClosedError, ConnectionFailedError}
    deadline = asyncio.get_running_loop().time() + 5
    while [row for row in redis.client_list() if row["name"] == name]:
        assert asyncio.get_running_loop().time() < deadline, "connections stay open"
        await asyncio.sleep(0.01)


async def test_health_check_replaces_a_dead_connection(flavour, params, proxy, key):
    """An idle connection is checked before use; one that is dead is replaced unseen."""
    behind = attrs.evolve(
        params, host=proxy.host, port=proxy.port, health_check_interval=1, socket_timeout=1
    )
    async with flavour.pool(behind) as pool, flavour.stream(pool) as stream:
        await stream.ping()
        await asyncio.sleep(1.1)
        proxy.drop_requests(b"PING")
        assert await stream.publish_message(key, {"n": 1})
        assert proxy.connections == 2


def client_of(flavour, pool):
    """Return a redis-py client of the user's own on the pool for commands."""
    plain = getattr(pool.get_pool(), "_blocking", pool.get_pool())
    return flavour.adapt(flavour.redis.Redis(connection_pool=plain))


async def test_the_connection_at_hand_goes_to_whoever_asks(flavour, params, key, redis):
    """The only connection is kept between two calls, and lent to the user's own commands."""
    name = f"whoever-{flavour.name}"
    one = attrs.evolve(params, max_connections=1, connection_available_timeout=5)
    async with flavour.pool(one) as pool, flavour.stream(pool) as stream:
        client = client_of(flavour, pool)
        getattr(pool.get_pool(), "_blocking", pool.get_pool()).connection_kwargs["client_name"] = (
            name
        )
        for n in range(20):
            await stream.publish_message(key, {"n": n})
            assert await client.xlen(key) == n + 1
            assert [row["name"] for row in redis.client_list()].count(name) == 1


async def test_a_connection_at_hand_that_died_is_not_used(flavour, params, key, redis, until):
    """The server closed it between two calls: the next one does not notice."""
    name = f"at-hand-{flavour.name}"
    async with flavour.pool(params) as pool, flavour.stream(pool, retry_seconds=0) as stream:
        plain = getattr(pool.get_pool(), "_blocking", pool.get_pool())
        plain.connection_kwargs["client_name"] = name
        for n in range(5):
            await stream.publish_message(key, {"n": n})
            [row] = [row for row in redis.client_list() if row["name"] == name]
            redis.client_kill_filter(_id=row["id"])
            await until(lambda: name not in [row["name"] for row in redis.client_list()])
            await asyncio.sleep(0.05)
    assert redis.xlen(key) == 5


async def test_the_users_commands_and_calls_share_few_connections(flavour, params, key, redis):
    """Nobody waits for a connection that is kept at hand, and none gets lost."""
    few = attrs.evolve(params, max_connections=2, connection_available_timeout=10)
    async with flavour.pool(few) as pool, flavour.stream(pool) as stream:
        client = client_of(flavour, pool)

        async def publish():
            for _ in range(40):
                await stream.publish_message(key, {})

        async def add():
            for _ in range(40):
                await client.xadd(key, {"x": "y"})

        callers = [*(publish() for _ in range(4)), *(add() for _ in range(4))]
        await asyncio.wait_for(asyncio.gather(*callers), 30)
    assert redis.xlen(key) == 320
