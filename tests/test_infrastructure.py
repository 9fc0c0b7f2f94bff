"""The servers, proxies and adapters that other tests rely on do what they say."""

import asyncio
import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis as redis_py

from flavours import Adapter, Threads
from proxy import Proxy, frame_end
from servers import BinaryServer, ContainerServer, StartError


@pytest.fixture
def client(server, proxy):
    """A client through the proxy."""
    with server.client(host=proxy.host, port=proxy.port) as client:
        yield client


@pytest.fixture
def blocked(server, proxy, redis, key, wait_until):
    """A group reader called `key` that waits on the server, behind the proxy."""
    redis.xgroup_create(key, "group", mkstream=True)

    def read():
        options = {"client_name": key, "socket_timeout": 20}
        with server.client(host=proxy.host, port=proxy.port, **options) as reader:
            return reader.xreadgroup("group", "reader", {key: ">"}, block=15_000)

    with ThreadPoolExecutor() as executor:
        reading = executor.submit(read)
        wait_until(lambda: command_of(redis, key) == "xreadgroup")
        yield reading
        # Whatever the test did, the reader ends.
        redis.delete(key)
        proxy.cut()


def command_of(redis, name):
    """The last command of the connection of this name; None if there is none."""
    return {one["name"]: one["cmd"] for one in redis.client_list()}.get(name)


def test_a_lost_reply_is_an_error_of_a_command_that_took_effect(proxy, client, redis, key):
    """`drop_replies` loses the reply of the request it names, once, and nothing else."""
    client.ping()
    proxy.drop_replies(b"XADD")
    assert client.get(key) is None
    with pytest.raises(redis_py.ConnectionError):
        client.xadd(key, {"n": 1})
    assert redis.xlen(key) == 1
    client.xadd(key, {"n": 2})
    assert redis.xlen(key) == 2


def test_a_lost_request_never_reaches_the_server(proxy, client, redis, key):
    """`drop_requests` cuts the connection before the server sees the request."""
    proxy.drop_requests(b"XADD", after=1)
    client.xadd(key, {"n": 1})
    with pytest.raises(redis_py.ConnectionError):
        client.xadd(key, {"n": 2})
    assert [fields for _, fields in redis.xrange(key)] == [{b"n": b"1"}]


def test_a_fault_in_a_pipeline_hits_the_reply_it_names(proxy, client, redis, key):
    """Replies before the one that is cut arrive; so does the part of it that was asked for."""
    client.ping()
    proxy.cut_reply_after(3, b"second")
    connection = client.connection_pool.get_connection()
    connection.send_packed_command(
        connection.pack_commands([("ECHO", "first"), ("ECHO", "second")])
    )
    assert connection.read_response() == b"first"
    with pytest.raises(redis_py.ConnectionError):
        connection.read_response()
    client.connection_pool.release(connection)


def test_replies_are_held_back_until_released(proxy, client, redis, key, wait_until):
    """A command whose reply is held back has taken effect; its caller goes on waiting."""
    client.ping()
    proxy.hold_replies(b"XADD")
    with ThreadPoolExecutor() as executor:
        adding = executor.submit(client.xadd, key, {"n": 1})
        wait_until(lambda: proxy.held_replies)
        assert redis.xlen(key) == 1
        assert not adding.done()
        proxy.release_replies()
        assert adding.result(5)


def test_some_replies_are_held_back_and_others_not(server, proxy, redis, key, wait_until):
    """`times` lets replies on other connections through once so many are held back."""
    proxy.hold_replies(b"XADD", after=1, times=1)
    with (
        server.client(host=proxy.host, port=proxy.port, socket_timeout=0.2) as hasty,
        server.client(host=proxy.host, port=proxy.port) as other,
    ):
        hasty.xadd(key, {"n": 1})
        with pytest.raises(redis_py.TimeoutError):
            hasty.xadd(key, {"n": 2})
        assert other.xadd(key, {"n": 3})
    assert redis.xlen(key) == 3
    assert proxy.struck == {"reply held": 1}
    assert not proxy.armed


def test_requests_are_held_back_until_released(proxy, client, redis, key, wait_until):
    """A request that is held back arrives later, and then its caller gets the reply."""
    client.ping()
    proxy.hold_requests(b"XADD")
    with ThreadPoolExecutor() as executor:
        adding = executor.submit(client.xadd, key, {"n": 1})
        wait_until(lambda: proxy.held_requests)
        assert not redis.exists(key)
        proxy.release_requests()
        assert adding.result(5)
    assert redis.xlen(key) == 1
    assert client.xadd(key, {"n": 2})
    assert proxy.late_requests == proxy.held_requests == 0


def test_a_request_held_back_outlives_its_client(server, proxy, redis, key, wait_until):
    """It arrives after its client has gone and after what others sent meanwhile, just once."""
    proxy.hold_requests(b"XADD", times=1)
    options = {"host": proxy.host, "port": proxy.port}
    with server.client(**options, socket_timeout=0.2) as hasty:
        with pytest.raises(redis_py.TimeoutError):
            hasty.xadd(key, {"n": "late"})
        assert hasty.xadd(key, {"n": "retry"})
    assert proxy.held_requests == 1
    proxy.release_requests()
    wait_until(lambda: not proxy.unanswered)
    assert [fields[b"n"] for _, fields in redis.xrange(key)] == [b"retry", b"late"]
    assert proxy.late_requests == 1
    assert proxy.held == 0


def test_requests_behind_one_that_is_held_back_wait_for_it(proxy, client, redis, key, wait_until):
    """What is sent on one connection arrives in order."""
    connection = client.connection_pool.get_connection()
    proxy.hold_requests(b"first", times=1)
    commands = [("XADD", key, "*", "n", n) for n in ("first", "second")]
    connection.send_packed_command(connection.pack_commands(commands))
    wait_until(lambda: proxy.held_requests == 2)
    assert not redis.exists(key)
    proxy.release_requests()
    assert connection.read_response() < connection.read_response()
    client.connection_pool.release(connection)
    assert [fields[b"n"] for _, fields in redis.xrange(key)] == [b"first", b"second"]


def test_the_server_sees_the_addresses_of_the_proxy(server, proxy, redis):
    """The proxy's own connections can be told from others, to be killed for example."""
    if isinstance(server, ContainerServer):
        pytest.skip("addresses are translated on the way into a container")
    with server.client(host=proxy.host, port=proxy.port) as client:
        client.ping()
        mine = [row for row in redis.client_list() if row["addr"] in proxy.addresses]
    assert [row["cmd"] for row in mine] == ["ping"]


def test_a_connection_held_towards_the_server_goes_on_taking_messages(
    proxy, redis, key, blocked, wait_until
):
    """A blocked read whose client is cut off takes a message that nobody sees."""
    proxy.cut_client_side()
    with pytest.raises(redis_py.ConnectionError):
        blocked.result(5)
    assert proxy.held == 1
    redis.xadd(key, {"n": 1})
    assert redis.xpending(key, "group")["pending"] == 1
    proxy.close_held()
    assert proxy.held == 0
    wait_until(lambda: command_of(redis, key) is None)


def test_a_close_can_be_kept_from_the_server(server, proxy, redis, key, wait_until):
    """With `hold_closes`, a client's own close is not passed on, until `close_held`."""
    with server.client(host=proxy.host, port=proxy.port, client_name=key) as client:
        client.ping()
        proxy.hold_closes()
    wait_until(lambda: proxy.held == 1)
    assert command_of(redis, key) == "ping"
    proxy.close_held()
    wait_until(lambda: command_of(redis, key) is None)


def test_cut_closes_both_sides(proxy, redis, key, blocked):
    """A blocked read that is cut takes nothing."""
    proxy.cut()
    with pytest.raises(redis_py.ConnectionError):
        blocked.result(5)
    assert proxy.held == proxy.open_connections == 0


def test_refused_connections_and_counters(server, proxy, client):
    """`refuse` lets present connections be, `accept` lets new ones in again."""
    client.ping()
    before = proxy.requests, proxy.request_bytes
    proxy.refuse()
    client.ping()
    assert (proxy.requests, proxy.request_bytes) == (before[0] + 1, before[1] + 14)
    with server.client(host=proxy.host, port=proxy.port) as other:
        with pytest.raises(redis_py.ConnectionError, match="refused"):
            other.ping()
        proxy.accept()
        assert other.ping()
    assert proxy.connections == 2


def test_large_requests_and_replies_pass_whole(proxy, client, key):
    """What does not fit into one packet arrives as it was."""
    value = b"\r\n$*" * 1_000_000
    client.set(key, value)
    assert client.get(key) == value


@pytest.mark.parametrize(
    "frame",
    [
        b"+OK\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n$2\r\n\r\n\r\n*1\r\n:1\r\n",
        b"%1\r\n+key\r\n*1\r\n_\r\n",
        b"|1\r\n+about\r\n#t\r\n,1.5\r\n",
        b">2\r\n+kind\r\n~1\r\n=5\r\ntxt:a\r\n",
    ],
)
def test_frames_end_where_their_value_ends(frame):
    """Every kind of RESP value is found whole, and not before all of it is there."""
    assert frame_end(bytearray(frame + b"+next\r\n")) == len(frame)
    assert not any(frame_end(bytearray(frame[:length])) for length in range(len(frame)))


def test_a_killed_server_comes_back_where_it_was(private_server):
    """Port, data and password outlive kill and restart; other options may take their place."""
    server = private_server("--appendonly", "yes", "--appendfsync", "always")
    with server.client() as client:
        client.set("key", "value")
        server.kill()
        with pytest.raises(redis_py.ConnectionError):
            client.ping()
        server.restart()
        assert client.get("key") == b"value"
        server.restart("--appendonly", "yes", "--requirepass", 'se cr"et')
        with pytest.raises(redis_py.AuthenticationError):
            client.ping()
    with server.client() as client:
        assert client.get("key") == b"value"


def test_what_a_crash_cut_off_does_not_come_back(private_server):
    """A script whose effects were half in the append-only file stays undone, starts later too."""
    server = private_server("--appendonly", "yes", "--appendfsync", "always")
    if not isinstance(server, BinaryServer):
        pytest.skip("its files cannot be reached")
    script = "for n = 1, 2 do redis.call('XADD', 'stream', '*', 'n', n) end"
    with server.client() as client:
        client.xadd("stream", {"n": 0})
        client.eval(script, 0)
        server.kill()
        [log] = [path for path in server.folder.rglob("*.aof") if b"XADD" in path.read_bytes()]
        os.truncate(log, log.read_bytes().rindex(b"XADD") + 8)
        server.restart()
        assert client.xlen("stream") == 1
        client.eval(script, 0)
        server.restart()
        assert client.xlen("stream") == 3


def test_a_paused_server_answers_late(private_server):
    """A paused server leaves connections open, answers nothing, and catches up."""
    server = private_server()
    with server.client(socket_timeout=0.2) as hasty, server.client() as patient:
        assert hasty.ping()
        assert patient.ping()
        server.pause()
        with pytest.raises(redis_py.TimeoutError):
            hasty.incr("key")
        with ThreadPoolExecutor() as executor:
            waiting = executor.submit(patient.incr, "key")
            server.resume()
            assert waiting.result(5) == 2


def test_a_paused_server_can_be_stopped(private_server):
    """Stopping needs no resuming, and stopping twice does no harm."""
    server = private_server()
    server.pause()
    server.stop()
    with server.client() as client, pytest.raises(redis_py.ConnectionError):
        client.ping()


def test_a_server_that_does_not_start_says_why(private_server):
    """The error has the end of the server's log."""
    with pytest.raises(StartError, match="no-such-option"):
        private_server("--no-such-option", "1")


def test_the_proxy_outlives_its_server(private_server):
    """Connections through a proxy end with the server and work again after its restart."""
    server = private_server()
    with Proxy(server.host, server.port) as proxy, server.client(port=proxy.port) as client:
        client.ping()
        server.kill()
        with pytest.raises(redis_py.ConnectionError):
            client.ping()
        server.restart()
        assert client.ping()


def tls_client(server, ca, **options):
    """A client that verifies the server's certificate against this CA."""
    options |= {"ssl": True, "ssl_ca_certs": str(ca), "ssl_check_hostname": True}
    return server.client(host="localhost", port=server.tls.port, **options)


def test_a_server_shows_a_certificate_of_its_ca(tls_server, certificates):
    """The good certificate is accepted by who trusts its CA."""
    server = tls_server()
    with tls_client(server, certificates.ca) as client:
        assert client.ping()
    refused = pytest.raises(redis_py.ConnectionError, match="CERTIFICATE_VERIFY_FAILED")
    with tls_client(server, certificates.other_ca) as client, refused:
        client.ping()


@pytest.mark.parametrize(("shows", "reason"), [("wrong_host", "ostname"), ("expired", "expired")])
def test_a_server_can_show_a_bad_certificate(tls_server, certificates, shows, reason):
    """Each bad certificate is refused for what is wrong with it."""
    refused = pytest.raises(redis_py.ConnectionError, match=reason)
    with tls_client(tls_server(shows=shows), certificates.ca) as client, refused:
        client.ping()


def test_a_client_certificate_with_an_encrypted_key(tls_server, certificates):
    """A server may ask for a certificate, whose key needs its password."""
    server = tls_server("--tls-auth-clients", "yes")
    mine = certificates.client
    files = {"ssl_certfile": str(mine.cert), "ssl_keyfile": str(mine.key)}
    with tls_client(server, certificates.ca, **files, ssl_password=mine.password) as client:
        assert client.ping()
    with tls_client(server, certificates.ca) as client, pytest.raises(redis_py.ConnectionError):
        client.ping()


class Twins:
    """An asyncio API, for the adapter to compare with."""

    class Thing:
        async def work(self): ...
        async def handle(self, handler): ...
        async def child(self): ...
        def plain(self): ...
        @contextlib.asynccontextmanager
        async def during(self):
            yield


class Thing:
    """The blocking twin of `Twins.Thing`."""

    size = 3

    def __init__(self):
        self.log = []

    def __enter__(self):
        self.log.append("enter")
        return self

    def __exit__(self, *exc_info):
        self.log.append(exc_info[0])

    def __iter__(self):
        return iter([1, 2])

    def work(self, barrier):
        return barrier.wait(5)

    def handle(self, handler):
        return handler(self)

    def child(self):
        return Thing()

    def plain(self, other):
        return other

    @contextlib.contextmanager
    def during(self):
        self.log.append("during")
        yield self.size

    def close(self):
        self.log.append("close")


@pytest.fixture
def threads():
    threads = Threads()
    yield threads
    threads.close()


async def test_blocking_objects_are_used_like_asyncio_ones(threads):
    """The adapter awaits what the twin awaits and translates what goes in and out."""
    blocking = Thing()
    thing = Adapter(threads, blocking, Twins)

    async def handler(given):
        assert given is thing
        await asyncio.sleep(0)
        return threading.current_thread()

    async with thing as entered:
        assert entered is thing
        barrier = threading.Barrier(100)
        assert set(await asyncio.gather(*[thing.work(barrier) for _ in range(100)])) == {
            *range(100)
        }
        assert await thing.handle(handler) is threading.current_thread()
        assert isinstance(await thing.child(), Adapter)
        assert thing.plain(thing) is thing
        assert [item async for item in thing] == [1, 2]
        async with thing.during() as size:
            assert size == thing.size == 3
    await thing.aclose()
    assert blocking.log == ["enter", "during", None, "close"]


async def test_errors_of_blocking_calls_reach_the_awaiting_test(threads):
    """An error in the thread is raised by the await, and by the block it leaves."""
    blocking, barrier = Thing(), threading.Barrier(2)
    barrier.abort()

    async def work():
        async with Adapter(threads, blocking) as thing:
            await thing.work(barrier)

    with pytest.raises(threading.BrokenBarrierError):
        await work()
    assert blocking.log == ["enter", threading.BrokenBarrierError]


async def test_a_cancelled_call_goes_on_in_its_thread(until):
    """Cancelling ends the waiting only; closing fails while such a call is still running."""
    threads, barrier = Threads(), threading.Barrier(2)
    call = asyncio.create_task(Adapter(threads, Thing()).work(barrier))
    await until(lambda: barrier.n_waiting)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(AssertionError, match=r"Thing\.work"):
        threads.close(timeout=0.01)
    barrier.wait(5)
    threads.close()


async def test_a_stream_of_either_flavour(flavour, stream, redis, key, until):
    """The fixtures give an opened stream of the flavour, on the shared server."""
    assert isinstance(getattr(stream, "_blocking", stream), flavour.api.StepRedisStream)
    await stream.publish_message(key, {"n": 1})
    assert await until(lambda: redis.xlen(key)) == 1
