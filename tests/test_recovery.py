"""Servers in trouble and groups that vanish: the consumer goes on by itself, as it was told."""

import asyncio
import contextlib
import logging
import time

import attrs
import pytest
from redis.exceptions import RedisError

from consuming import Recorder, counted, is_settled, members, pending, running
from step_redis import (
    ConnectionFailedError,
    GroupNotFoundError,
    NotAStreamError,
    PermissionDeniedError,
    RetryPolicy,
    ServerOutOfMemoryError,
    StepRedisPoolParams,
)

POLICIES = ["replay", "resume", "latest", "fail"]


@pytest.fixture
async def publish(stream, key):
    """Publish messages with a running number; returns their ids."""
    await stream.create_input_stream(key, "g")

    async def publish(count=1, first=0):
        return [await stream.publish_message(key, {"n": first + n}) for n in range(count)]

    return publish


def numbers(handled):
    return [message.data["n"] for message in handled.messages]


def checkpoint(redis, key):
    return redis.get(f"{{{key}}}.checkpoint:g")


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_group_that_was_never_there(flavour, pool, key, redis, publish, until, policy):
    """At the start the group is made where the policy says, or not at all."""
    await publish(3)
    redis.xgroup_destroy(key, "g")
    handled = Recorder()
    consumer = flavour.consumer(pool, key, on_group_lost=policy)
    if policy == "fail":
        async with consumer:
            with pytest.raises(GroupNotFoundError, match="create_input_stream"):
                await consumer.run(handled.handle)
        assert redis.xinfo_groups(key) == []
        return
    async with running(consumer, handled.handle):
        await until(lambda: members(redis, key))
        await publish(1, first=3)
        await until(lambda: 3 in numbers(handled))
        assert (await consumer.health()).counters.groups_lost == 0
    assert numbers(handled) == ([3] if policy == "latest" else [0, 1, 2, 3])


@pytest.mark.parametrize("policy", POLICIES)
async def test_the_group_is_destroyed(
    flavour, pool, key, redis, publish, until, policy, caplog, release
):
    """In the middle of a run the same: from the start, from what is unsettled, or what comes."""
    await publish(5)

    async def hang_at_three(message):
        if message.data["n"] == 3:
            await release.wait()

    handled = Recorder(hang_at_three)
    consumer = flavour.consumer(pool, key, on_group_lost=policy, prefetch=1)
    async with consumer:
        task = asyncio.ensure_future(consumer.run(handled.handle))
        await until(lambda: 3 in numbers(handled))
        lowest = handled.ids[3].encode()
        await until(lambda: checkpoint(redis, key) == b"<" + lowest)
        redis.xgroup_destroy(key, "g")
        if policy == "fail":
            with pytest.raises(GroupNotFoundError):
                await asyncio.gather(until(task.done), _release_later(release), task)
            return
        await until(lambda: counted(consumer, groups_lost=1))
        release.set()
        await publish(1, first=5)
        await until(lambda: 5 in numbers(handled))
        await until(is_settled(redis, key))
        consumer.stop()
        await task
    expected = {"replay": [0, 1, 2, 3, 4, 5], "resume": [3, 4, 5], "latest": [5]}
    assert numbers(handled)[4:] == expected[policy]
    lost = [record for record in caplog.records if "was not there; made it" in record.getMessage()]
    assert [record.levelname for record in lost] == ["WARNING"]


async def _release_later(release):
    # The run ends only when its handler has.
    await asyncio.sleep(0.5)
    release.set()


@pytest.mark.parametrize("policy", ["replay", "resume", "latest"])
@pytest.mark.parametrize("how", ["DEL", "FLUSHALL"])
async def test_the_stream_is_deleted(flavour, private_server, until, policy, how):
    """What was there is gone; what is published after it flows on, whatever the policy."""
    server, key = private_server(), "orders"
    params = StepRedisPoolParams.from_url(server.url)
    handled = Recorder()
    with server.client() as redis:
        async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
            await stream.create_input_stream(key, "g")
            for n in range(5):
                await stream.publish_message(key, {"n": n})
            consumer = flavour.consumer(pool, key, on_group_lost=policy)
            async with running(consumer, handled.handle):
                await until(is_settled(redis, key))
                await until(lambda: checkpoint(redis, key))
                redis.execute_command(*(("DEL", key) if how == "DEL" else ("FLUSHALL",)))
                if policy == "latest":
                    # What comes before the loss is noticed is what it skips.
                    await until(lambda: counted(consumer, groups_lost=1))
                for n in range(5, 10):
                    await stream.publish_message(key, {"n": n})
                await until(lambda: 9 in numbers(handled))
                await until(is_settled(redis, key))
    # On 6.2 the reader that was blocked meanwhile takes one, under a name that is over.
    assert sorted(numbers(handled)) == list(range(10))


async def test_resume_after_all_was_settled(flavour, pool, key, redis, publish, until):
    """With nothing pending, resume goes on behind the last one that was delivered."""
    await publish(5)
    handled = Recorder()
    consumer = flavour.consumer(pool, key, on_group_lost="resume")
    async with running(consumer, handled.handle):
        await until(is_settled(redis, key))
        last = handled.ids[-1].encode()
        await until(lambda: checkpoint(redis, key) == b"=" + last)
    redis.xgroup_destroy(key, "g")
    await publish(1, first=5)
    again = Recorder()
    async with running(flavour.consumer(pool, key, on_group_lost="resume"), again.handle):
        await until(is_settled(redis, key))
    assert numbers(again) == [5]


async def test_resume_on_a_stream_that_is_new(flavour, pool, key, redis, publish, until):
    """A checkpoint above the stream's last id is of another stream: it starts from the start."""
    await publish(3)
    redis.set(f"{{{key}}}.checkpoint:g", "=99999999999999-0")
    redis.xgroup_destroy(key, "g")
    handled = Recorder()
    async with running(flavour.consumer(pool, key, on_group_lost="resume"), handled.handle):
        await until(is_settled(redis, key))
    assert numbers(handled) == [0, 1, 2]


async def test_the_group_is_made_anew_at_once(flavour, pool, key, redis, publish, until):
    """Somebody makes the group again at once: what it then delivers is handled."""
    await publish(3)
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(is_settled(redis, key))
        with redis.pipeline() as pipe:
            pipe.xgroup_destroy(key, "g")
            pipe.xgroup_create(key, "g", "0")
            pipe.execute()
        await publish(1, first=3)
        await until(lambda: numbers(handled).count(3) >= 1)
        await until(is_settled(redis, key))
    assert set(numbers(handled)) == {0, 1, 2, 3}
    # The first handler was at it when it turned out that the group is another one.
    assert numbers(handled).count(0) <= 3


async def test_the_key_becomes_something_else(flavour, pool, key, redis, publish, until):
    """A stream that is replaced by another type is told by an error, not waited for."""
    await publish()
    handled = Recorder()
    async with flavour.consumer(pool, key) as consumer:
        task = asyncio.ensure_future(consumer.run(handled.handle))
        await until(is_settled(redis, key))
        redis.delete(key)
        redis.set(key, "text")
        with pytest.raises(NotAStreamError):
            await asyncio.wait_for(task, 10)


# --- The server is away ---------------------------------------------------------------------


@attrs.define
class Place:
    """A server of the test's own, and a consumer on it."""

    server: object
    redis: object
    consumer: object
    handled: Recorder

    def publish(self, first, count=5):
        for n in range(first, first + count):
            self.redis.xadd("orders", {"n": str(n), "_step:t": '{"n":"j"}'})


@pytest.fixture
def place(flavour, private_server):
    """Start a server with these options, and a consumer."""

    @contextlib.asynccontextmanager
    async def start(*args, then=None, **options):
        server, handled = private_server(*args), Recorder(then)
        params = StepRedisPoolParams.from_url(
            server.url, socket_timeout=2, socket_connect_timeout=1
        )
        with server.client() as redis:
            redis.xgroup_create("orders", "g", "0", mkstream=True)
            async with flavour.pool(params) as pool:
                consumer = flavour.consumer(pool, "orders", **options)
                async with running(consumer, handled.handle):
                    yield Place(server, redis, consumer, handled)

    return start


async def test_a_restart_of_the_server(place, until, caplog):
    """With a server that keeps its data nothing is lost; the outage is logged once, and its end."""
    caplog.set_level(logging.WARNING)
    async with place("--appendonly", "yes", "--appendfsync", "always") as here:
        here.publish(0)
        await until(is_settled(here.redis, "orders"))
        here.server.kill()
        await until(lambda: "waits for the server" in caplog.text)
        await asyncio.sleep(1)
        here.server.restart()
        here.publish(5)
        await until(lambda: len(set(numbers(here.handled))) == 10, timeout=20)
        await until(is_settled(here.redis, "orders"), timeout=20)
    texts = [record.getMessage() for record in caplog.records]
    about = "the consumer of 'orders' in group 'g'"
    assert sum(f"{about} waits" in text for text in texts) == 1
    assert sum(f"{about} goes on" in text for text in texts) == 1


async def test_a_restart_while_a_handler_runs(place, until, release):
    """A handler that outlives the restart acknowledges, or the message comes again."""
    options = "--appendonly", "yes", "--appendfsync", "always"
    async with place(*options, then=lambda _: release.wait()) as here:
        here.publish(0, 3)
        await until(lambda: here.handled.ids)
        here.server.restart()
        release.set()
        await until(is_settled(here.redis, "orders"), timeout=20)
    assert set(numbers(here.handled)) == {0, 1, 2}


async def test_a_server_that_loses_everything(place, until):
    """A server that comes back empty is like a new one."""
    async with place() as here:
        here.publish(0)
        await until(is_settled(here.redis, "orders"))
        here.server.restart()
        here.publish(5)
        await until(lambda: 9 in numbers(here.handled), timeout=20)
        await until(lambda: counted(here.consumer, groups_lost=1))
    assert numbers(here.handled) == list(range(10))


async def test_a_server_that_is_loading(place, until, caplog):
    """LOADING is waited for."""
    async with place("--rdbcompression", "no") as here:
        await until(lambda: members(here.redis, "orders"))
        for n in range(100):
            here.redis.set(f"key {n}", "x" * 100_000)
        here.redis.save()
        # It answers after every 2 MB, each 20 keys, and has 4 s to go.
        options = "--rdbcompression", "no", "--key-load-delay", "40000"
        await asyncio.to_thread(here.server.restart, *options, not_yet=())
        await until(lambda: not _is_loading(here.redis), timeout=30)
        here.publish(0)
        await until(lambda: 4 in numbers(here.handled), timeout=20)


def _is_loading(redis):
    try:
        return redis.info("persistence")["loading"]
    except RedisError:
        return True


async def test_a_server_that_is_read_only(place, until, caplog):
    """A demoted primary is waited for, until it takes writes again."""
    async with place(lease_seconds=2) as here:
        here.publish(0)
        await until(is_settled(here.redis, "orders"))
        here.redis.replicaof("127.0.0.1", 1)
        await until(lambda: "read-only replica" in caplog.text)
        await asyncio.sleep(1)
        here.redis.replicaof("NO", "ONE")
        here.publish(5)
        await until(lambda: 9 in numbers(here.handled))
        await until(is_settled(here.redis, "orders"))


async def test_a_server_without_memory(place, until, caplog, release):
    """A full server is waited for; then what was handled meanwhile is settled, or comes again."""
    async with place(then=lambda _: release.wait()) as here:
        here.publish(0)
        await until(lambda: here.handled.ids)
        here.redis.config_set("maxmemory", "1")
        await until(lambda: "maxmemory" in caplog.text)
        release.set()
        await asyncio.sleep(1)
        here.redis.config_set("maxmemory", "0")
        await until(is_settled(here.redis, "orders"))
    assert set(numbers(here.handled)) == set(range(5))


async def test_the_limit_of_an_outage(flavour, private_server, until):
    """After outage_limit_seconds run fails with what was wrong; before, it waits."""
    server = private_server()
    params = StepRedisPoolParams.from_url(server.url, socket_timeout=1, socket_connect_timeout=0.5)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await stream.create_input_stream("orders", "g")
        async with flavour.consumer(
            pool, "orders", outage_limit_seconds=2, grace_seconds=1
        ) as consumer:
            task = asyncio.ensure_future(consumer.run(Recorder().handle))
            with server.client() as redis:
                await until(lambda: members(redis, "orders"))
            server.kill()
            started = time.monotonic()
            with pytest.raises(ConnectionFailedError):
                await asyncio.wait_for(task, 30)
            assert 1.9 < time.monotonic() - started < 20


async def test_the_limit_without_memory(place, until):
    """So it does for a server that is full."""
    here_is_full = pytest.raises(ServerOutOfMemoryError)
    with here_is_full:
        async with place(outage_limit_seconds=0.5) as here:
            await until(lambda: members(here.redis, "orders"))
            here.redis.config_set("maxmemory", "1")
            while (await here.consumer.health()).running:
                await asyncio.sleep(0.05)


async def test_connections_that_the_server_kills(place, until):
    """CLIENT KILL, again and again, costs nothing and repeats nothing."""

    async def work(message):
        await asyncio.sleep(0.01)

    async with place(then=work, concurrency=3) as here:
        for first in range(0, 50, 5):
            here.publish(first)
            here.redis.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: len(set(numbers(here.handled))) == 50, timeout=20)
        await until(is_settled(here.redis, "orders"))
        await until(lambda: counted(here.consumer, acknowledged=50))
    assert sorted(numbers(here.handled)) == list(range(50))


async def test_a_server_that_pauses_longer_than_the_lease(place, until):
    """CLIENT PAUSE for longer than the lease: afterwards all flows on, and all is settled."""

    async def work(message):
        await asyncio.sleep(0.05)

    async with place(then=work, lease_seconds=1, prefetch=3) as here:
        here.publish(0, 20)
        await until(lambda: len(here.handled.ids) >= 3)
        here.redis.client_pause(2500, all=True)
        await until(lambda: len(set(numbers(here.handled))) == 20, timeout=20)
        await until(is_settled(here.redis, "orders"), timeout=20)
        assert (await here.consumer.health()).counters.leases_lost >= 1


async def test_a_server_that_hangs(place, until):
    """A server that stops answering is noticed, and used again when it answers."""
    async with place(lease_seconds=3) as here:
        here.publish(0)
        await until(is_settled(here.redis, "orders"))
        here.server.pause()
        try:
            await asyncio.sleep(4)
        finally:
            here.server.resume()
        here.publish(5)
        await until(lambda: 9 in numbers(here.handled), timeout=20)
        await until(is_settled(here.redis, "orders"), timeout=20)
    assert set(numbers(here.handled)) == set(range(10))


async def test_a_missing_permission(flavour, private_server, until):
    """What no waiting mends ends run with the error that says what is missing."""
    server = private_server()
    with server.client() as redis:
        redis.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", "-evalsha")
        redis.xgroup_create("orders", "g", mkstream=True)
    params = StepRedisPoolParams.from_url(server.url, username="few", password="pw")
    async with flavour.pool(params) as pool, flavour.consumer(pool, "orders") as consumer:
        with pytest.raises(PermissionDeniedError, match="evalsha"):
            await asyncio.wait_for(consumer.run(Recorder().handle), 10)


async def test_scripts_that_are_flushed(place, until):
    """A server that forgot the scripts gets them again."""

    async def fail_once(message):
        if message.delivery_count == 1:
            raise ValueError("made up")

    retry = RetryPolicy(delays=0.1)
    async with place(then=fail_once, retry=retry) as here:
        for first in range(0, 25, 5):
            here.redis.script_flush()
            here.publish(first)
        await until(is_settled(here.redis, "orders"))
    assert sorted(numbers(here.handled)) == sorted([*range(25)] * 2)
    assert pending(here.redis, "orders") == 0
