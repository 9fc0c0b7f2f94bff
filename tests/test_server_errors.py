"""Each error of the tree, made by a real server: users, permissions, and servers in trouble."""

import asyncio
import logging

import attrs
import pytest
import redis.exceptions

from step_redis import (
    AuthenticationFailedError,
    ConnectionFailedError,
    PermissionDeniedError,
    PoolClosedError,
    ServerError,
    ServerLoadingError,
    ServerOutOfMemoryError,
    ServerReadOnlyError,
    StepRedisError,
    StepRedisPoolParams,
)

SECRET = "correct horse battery"


def params_of(server, **fields):
    return StepRedisPoolParams(
        **{"host": server.host, "port": server.port, "socket_connect_timeout": 2} | fields
    )


async def publish(flavour, params, key="orders"):
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        return await stream.publish_message(key, {"n": 1})


@pytest.fixture
def acl_server(private_server):
    """A server with one user of few rights."""
    server = private_server()
    with server.client() as client:
        client.execute_command(
            *("ACL", "SETUSER", "few", "on", f">{SECRET}", "~orders*"),
            *("+@connection", "+xadd", "+xgroup", "+xreadgroup", "+xack", "+xpending", "+xrange"),
        )
    return server


@pytest.mark.parametrize("protocol", [2, 3])
async def test_user_and_password(flavour, acl_server, protocol):
    """An ACL user publishes, reads and acknowledges with the rights for just that."""
    params = params_of(acl_server, username="few", password=SECRET, protocol=protocol)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream("orders", "g")
        message_id = await stream.publish_message("orders", {"n": 1})
        assert len(await stream.receive_message("orders", "g", "c", 1000)) == 1
        assert await stream.acknowledge_message("orders", "g", message_id) == 1


@pytest.mark.parametrize("protocol", [2, 3])
async def test_wrong_password(flavour, acl_server, protocol, caplog):
    """A wrong password is refused at once and shown nowhere."""
    wrong = params_of(acl_server, username="few", password="hunter2", protocol=protocol)
    with pytest.raises(AuthenticationFailedError, match="refused to authenticate") as caught:
        await publish(flavour, wrong)
    assert isinstance(caught.value, redis.exceptions.AuthenticationError)
    assert not caught.value.outcome_unknown
    assert "hunter2" not in caplog.text + str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_password_required(flavour, private_server, protocol):
    """A server that asks for a password: without one refused, with it served."""
    server = private_server("--requirepass", SECRET)
    with pytest.raises(AuthenticationFailedError):
        await publish(flavour, params_of(server, protocol=protocol))
    assert await publish(flavour, params_of(server, password=SECRET, protocol=protocol))


async def test_password_where_none_is_set(flavour, server, key):
    """A password for a server that has none is refused, and not shown (RESP3 takes any)."""
    params = params_of(server, password="hunter2", protocol=2)
    with pytest.raises(AuthenticationFailedError) as caught:
        await publish(flavour, params, key)
    assert "hunter2" not in str(caught.value)


async def test_missing_permission(flavour, acl_server):
    """A command or a key that the user may not touch is named; nothing was done."""
    params = params_of(acl_server, username="few", password=SECRET)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        with pytest.raises(PermissionDeniedError, match="key") as caught:
            await stream.publish_message("invoices", {"n": 1})
        assert isinstance(caught.value, redis.exceptions.NoPermissionError)
        assert (caught.value.stream, caught.value.outcome_unknown) == ("invoices", False)
        with pytest.raises(PermissionDeniedError, match="expire"):
            await stream.set_ttl("orders", 10)
        await stream.create_input_stream("orders", "g")
        await stream.publish_message("orders", {"n": 1})
        await stream.receive_message("orders", "g", "c")
        with pytest.raises(PermissionDeniedError, match="xclaim"):
            await stream.claim_messages("orders", "g", "c", 0)


async def test_the_rights_of_the_readme_outlast_a_broken_connection(flavour, acl_server):
    """XPENDING and XRANGE are enough to find what a lost reply held."""
    params = params_of(acl_server, username="few", password=SECRET)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream("orders", "g")
        receiving = asyncio.ensure_future(stream.receive_message("orders", "g", "c", 20_000))
        with acl_server.client() as client:
            while not (blocked := [r for r in client.client_list() if r["cmd"] == "xreadgroup"]):
                await asyncio.sleep(0.01)
            client.client_kill_filter(_id=blocked[0]["id"])
        with pytest.raises(ConnectionFailedError):
            await receiving
        message_id = await stream.publish_message("orders", {"n": 1})
        [message] = await stream.receive_message("orders", "g", "c", 5000)
        assert message["id"] == message_id


async def test_missing_permission_for_the_ttl_loses_no_message(flavour, acl_server):
    """A read whose EXPIRE is denied raises, and what it received comes with the next."""
    params = params_of(acl_server, username="few", password=SECRET)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream("orders", "g")
        message_id = await stream.publish_message("orders", {"n": 1})
        for wait_ms in (0, 200):
            with pytest.raises(PermissionDeniedError, match="expire"):
                await stream.receive_message("orders", "g", "c", wait_ms, ttl_seconds=100)
            [message] = await stream.receive_message("orders", "g", "c")
            assert message["id"] == message_id
            message_id = await stream.publish_message("orders", {"n": 2})


async def test_out_of_memory(flavour, private_server):
    """A server at its maxmemory refuses to write and says so."""
    server = private_server("--maxmemory", "4mb")
    async with flavour.pool(params_of(server)) as pool, flavour.stream(pool) as stream:
        publishing = (stream.publish_message("orders", {"big": "x" * 100_000}) for _ in range(100))
        with pytest.raises(ServerOutOfMemoryError, match="maxmemory") as caught:
            [await one for one in publishing]
    assert isinstance(caught.value, redis.exceptions.OutOfMemoryError)
    assert not caught.value.outcome_unknown


async def test_read_only_replica(flavour, private_server):
    """A replica refuses to write and says so."""
    server = private_server()
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)
    with pytest.raises(ServerReadOnlyError, match="connect to the primary"):
        await publish(flavour, params_of(server))


@pytest.fixture
async def loading_server(private_server):
    """A server that loads its data for some seconds, and answers meanwhile."""
    server = private_server()
    with server.client() as client:
        client.config_set("rdbcompression", "no")
        for n in range(200):
            client.set(f"key {n}", "x" * 100_000)
        client.save()
    # It answers after every 2 MB, each 20 keys, and has 6 s to go.
    await asyncio.to_thread(server.restart, "--key-load-delay", "30000", not_yet=())
    return server


async def test_loading(flavour, loading_server):
    """A server that loads its data for longer than to be waited for is told as that."""
    with pytest.raises(ServerLoadingError, match="still loading") as caught:
        await publish(flavour, params_of(loading_server, socket_connect_timeout=1))
    assert isinstance(caught.value, redis.exceptions.BusyLoadingError)
    assert not caught.value.outcome_unknown


async def test_loading_is_waited_for(flavour, loading_server):
    """A server that loads its data is waited for like one that cannot be reached."""
    await publish(flavour, params_of(loading_server, socket_connect_timeout=30))
    with loading_server.client() as client:
        assert client.xlen("orders") == 1


async def test_other_errors_of_the_server(flavour, private_server):
    """What has no class of its own is a ServerError with the server's words."""
    server = private_server("--min-replicas-to-write", "1")
    with pytest.raises(ServerError, match="NOREPLICAS") as caught:
        await publish(flavour, params_of(server))
    assert isinstance(caught.value, redis.exceptions.ResponseError)


async def test_database_that_does_not_exist(flavour, server, key):
    """A database out of range is told in the server's words."""
    with pytest.raises(ServerError, match="DB index is out of range"):
        await publish(flavour, params_of(server, db=100_000), key)


async def test_no_server(flavour):
    """Nothing listens there: the error names the place and what to check."""
    params = StepRedisPoolParams(port=1, socket_connect_timeout=0.3)
    with pytest.raises(
        ConnectionFailedError, match=r"cannot connect to localhost:1: .*refused\. Check"
    ):
        await publish(flavour, params)


async def test_unknown_host(flavour):
    """A name that resolves to nothing is told as such."""
    params = StepRedisPoolParams(host="nowhere.invalid", socket_connect_timeout=0.3)
    with pytest.raises(StepRedisError, match=r"nowhere\.invalid"):
        await publish(flavour, params)


async def test_connection_limit_of_the_server(flavour, private_server, until):
    """A server with no room for another client: told after it was tried again."""
    server = private_server()
    with server.client() as client:
        await until(lambda: len(client.client_list()) == 1)
        client.config_set("maxclients", 1)
        with pytest.raises(ConnectionFailedError, match="max number of clients"):
            await publish(flavour, params_of(server, socket_connect_timeout=0.3))


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("secret", [SECRET, "x" * 300, "new\nline", "token" * 50 + " end"])
async def test_servers_that_quote_what_they_do_not_know(
    flavour, private_server, caplog, protocol, secret
):
    """A server without HELLO and AUTH quotes their arguments, cut and changed: none are shown."""
    server = private_server("--rename-command", "HELLO", "", "--rename-command", "AUTH", "")
    params = params_of(server, username="few", password=secret, protocol=protocol)
    with pytest.raises(
        ServerError, match=r"unknown command .* its arguments are not shown"
    ) as caught:
        await publish(flavour, params)
    error = caught.value
    told = f"{error}{error!r}{error.__cause__}{error.__context__}{caplog.text}"
    for length in (12, 4):
        assert secret[:length] not in told


async def test_servers_that_quote_a_message(flavour, private_server, caplog):
    """A server without XADD quotes the message: it is not shown."""
    server = private_server("--rename-command", "XADD", "")
    params = params_of(server)
    async with flavour.pool(params) as pool, flavour.stream(pool, retry_seconds=0) as stream:
        with pytest.raises(ServerError, match="unknown command") as caught:
            await stream.publish_message("orders", {"iban": "DE89"})
    assert "DE89" not in f"{caught.value}{caught.value.__cause__}{caplog.text}"


async def test_arguments_in_the_wrong_place_are_not_logged(flavour, pool, caplog):
    """A message or headers passed as another argument stay out of errors and logs."""
    async with flavour.stream(pool) as stream:
        for call in (
            stream.publish_message({"iban": "DE89"}, "orders"),
            stream.publish_message("orders", {}, {"iban": "DE89"}),
            stream.acknowledge_message("orders", "g", [{"iban": "DE89"}]),
        ):
            with pytest.raises(StepRedisError) as caught:
                await call
            assert "DE89" not in f"{caught.value}"
    assert "DE89" not in caplog.text


async def test_closed_pool(flavour, pool, key):
    """After the pool is closed, streams on it say so."""
    stream = flavour.stream(pool)
    await pool.aclose()
    with pytest.raises(PoolClosedError, match="closed"):
        await stream.publish_message(key, {})
    with pytest.raises(PoolClosedError):
        await stream.receive_message(key, "g", "c", 100)


async def test_failures_are_logged_once_and_without_data(flavour, pool, key, caplog):
    """One record for a failure, with what it is about, never with the message."""
    logger = logging.getLogger("my.service")
    async with flavour.stream(pool, logger) as stream:
        with pytest.raises(StepRedisError):
            await stream.receive_message(key, "billing", "worker", 10)
        with pytest.raises(StepRedisError):
            await stream.publish_message(key, {"card": {"4111 1111"}})
    first, second = [record for record in caplog.records if record.name == "my.service"]
    text = first.getMessage()
    assert text.startswith("receive_message failed: GroupNotFoundError")
    assert all(part in text for part in (key, "'billing'", "'worker'"))
    assert "4111" not in second.getMessage()


def test_no_secret_in_any_repr(flavour):
    """Neither parameters nor pool nor stream show a password."""
    params = StepRedisPoolParams(password=SECRET, ssl_client_key_file_password="hunter2")
    pool = flavour.pool(params)
    shown = f"{params!r}{pool!r}{flavour.stream(pool)!r}{attrs.evolve(params, db=1)!r}"
    assert SECRET not in shown
    assert "hunter2" not in shown
