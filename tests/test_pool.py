"""The pool: sockets, redis-py's pools, and connections that are never lost."""

import asyncio
import contextlib
import socket

import attrs
import pytest

from step_redis import PoolExhaustedError


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


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_release_that_is_cancelled_loses_no_connection(flavour, params):
    """A cancel while redis-py's pool is locked does not cost it a connection."""
    async with flavour.pool(attrs.evolve(params, max_connections=1)) as pool:
        inner = pool.get_pool()
        for _ in range(20):
            connection = await asyncio.wait_for(inner.get_connection(), 5)
            async with inner._condition:
                releasing = asyncio.ensure_future(inner.release(connection))
                await asyncio.sleep(0)
                releasing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await releasing


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_random_cancels_lose_no_connection(flavour, params, key):
    """However often calls are cancelled, all connections stay usable."""
    few = attrs.evolve(params, max_connections=3, connection_available_timeout=5)
    async with flavour.pool(few) as pool, flavour.stream(pool) as stream:
        for turn in range(150):
            tasks = [asyncio.ensure_future(stream.publish_message(key, {})) for _ in range(8)]
            for _ in range(turn % 15):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(stream.publish_message(key, {}) for _ in range(9)))


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
