"""Large backlogs: taken over completely, with a bounded number of commands.

Scaled down by default. STEP_REDIS_TEST_BACKLOG=full leaves 100,000 messages behind, and looks at
a group with a million pending messages and 1,000 consumers; that takes some minutes.
"""

import asyncio
import os
import time

import attrs
import pytest

from consuming import Recorder, is_settled, members, pending, running
from step_redis import StepRedisPoolParams

IS_FULL = os.environ.get("STEP_REDIS_TEST_BACKLOG") == "full"
LEFT_BEHIND = 100_000 if IS_FULL else 3_000
PENDING, CONSUMERS = (1_000_000, 1_000) if IS_FULL else (20_000, 100)

ADD = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do redis.call('XADD', KEYS[1], '*', 'n', n) end
"""


def name_of(number):
    """A consumer's name as ours are, without a lease unless one is given to it."""
    return f"dead~{number:016x}"


def leave_behind(client, count, consumers, stream="orders"):
    """Let as many consumers hold as many messages, numbered in the order of the stream."""
    client.xgroup_create(stream, "g", "0", mkstream=True)
    for first in range(0, count, 5000):
        client.eval(ADD, 1, stream, first, min(first + 5000, count))
    with client.pipeline(transaction=False) as pipe:
        for number in range(consumers):
            pipe.xreadgroup("g", name_of(number), {stream: ">"}, count=-(-count // consumers))
            if number % 50 == 49:
                pipe.execute()
        pipe.execute()
    assert client.xpending(stream, "g")["pending"] == count


def calls(client):
    """How often each command ran, by itself or within a script."""
    return {
        name.removeprefix("cmdstat_"): row["calls"]
        for name, row in client.info("commandstats").items()
    }


@pytest.fixture
def busy_server(private_server):
    server = private_server()
    with server.client(socket_timeout=60) as client:
        yield server, client


async def test_what_dead_consumers_left(flavour, busy_server, until):
    """One consumer takes over all they held, and handles what is published meanwhile."""
    server, client = busy_server
    consumers = LEFT_BEHIND // 100
    leave_behind(client, LEFT_BEHIND, consumers)
    handled, new, at = Recorder(), 0, {}
    started = time.monotonic()

    async def publish():
        nonlocal new
        while len(handled.messages) < LEFT_BEHIND + new:
            client.xadd("orders", {"n": LEFT_BEHIND + new})
            at[str(LEFT_BEHIND + new)] = len(handled.messages)
            new += 1
            await asyncio.sleep(0.01)

    params = StepRedisPoolParams.from_url(server.url)
    async with flavour.pool(params) as pool:
        consumer = flavour.consumer(pool, "orders", concurrency=10)
        client.config_resetstat()
        async with running(consumer, handled.handle):
            publishing = asyncio.ensure_future(publish())
            await until(lambda: len(handled.messages) >= LEFT_BEHIND, timeout=300)
            publishing.cancel()
            await until(is_settled(client, "orders"), timeout=60)
            await until(lambda: len(members(client, "orders")) == 1)
            counters = (await consumer.health()).counters
            took = time.monotonic() - started
            counts = calls(client)
    numbers = [int(message.data["n"]) for message in handled.messages]
    assert sorted(numbers) == list(range(LEFT_BEHIND + new))
    for message in handled.messages:
        assert message.delivery_count == (2 if int(message.data["n"]) < LEFT_BEHIND else 1)
    assert (counters.taken_over, counters.consumers_removed) == (LEFT_BEHIND, consumers)
    # Old ones do not keep the new ones waiting until all of them are done.
    place = {message.data["n"]: index for index, message in enumerate(handled.messages)}
    waited = sorted(place[number] - behind for number, behind in at.items() if number in place)
    assert waited[len(waited) // 2] < LEFT_BEHIND / 2
    # One acknowledgement a message; beside that what is taken at once, and a few a second.
    messages = LEFT_BEHIND + new
    per_message = (counts["evalsha"] - messages) / messages
    print(  # noqa: T201 - shown by pytest -rP
        f"{messages} messages in {took:.1f} s, {counts['evalsha']} scripts,"
        f" {counts['xreadgroup']} reads; new ones waited for {waited[len(waited) // 2]} others"
    )
    assert counts["evalsha"] < messages * 1.2 + 50 * took + 100
    assert counts["xreadgroup"] < 2 * new + 10 * took + 100
    assert per_message < 1


async def test_one_look_at_a_large_group(flavour, busy_server, until):
    """Looking for dead consumers costs by their number, not by how much they hold."""
    server, client = busy_server
    costs = {}
    for stream, count in (("few", CONSUMERS), ("many", PENDING)):
        leave_behind(client, count, CONSUMERS, stream)
        # All of them are alive, so that there is nothing to do but to look.
        leases = {name_of(number): 9e15 for number in range(CONSUMERS)}
        client.zadd(f"{{{stream}}}.leases:g", leases)
        client.xgroup_createconsumer(stream, "g", "_step:parked")
        params = StepRedisPoolParams.from_url(server.url)
        async with (
            flavour.pool(params) as pool,
            running(flavour.consumer(pool, stream), Recorder().handle),
        ):
            await until(lambda stream=stream: len(members(client, stream)) > CONSUMERS)
            client.config_resetstat()
            await asyncio.sleep(4)
            counts = calls(client)
            usec = client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]
        assert pending(client, stream) == count
        costs[stream] = counts
        print(  # noqa: T201
            f"{stream}: {counts['evalsha']} scripts, {usec:.0f} us each, {counts['zscore']} looks"
        )
        # Two groups of its own, each asked twice a second.
        assert counts["evalsha"] <= 2 * 2 * 4 + 6
        # One look a second, at each consumer once.
        assert counts["zscore"] <= 5 * CONSUMERS + 200
        assert counts["xpending"] <= 5 * 2 + 40
    assert costs["many"]["zscore"] <= costs["few"]["zscore"] * 1.6 + 50
    assert costs["many"]["xpending"] <= costs["few"]["xpending"] * 1.6 + 20


@attrs.frozen
class Shares:
    """Who handled what."""

    recorders: list

    @property
    def ids(self):
        return [one for recorder in self.recorders for one in recorder.ids]


async def test_several_consumers_share_a_backlog(flavour, busy_server, until):
    """Consumers that take over together do so without doing anything twice."""
    server, client = busy_server
    count = LEFT_BEHIND // 3
    leave_behind(client, count, 20)
    params = StepRedisPoolParams.from_url(server.url)
    shares = Shares([Recorder() for _ in range(3)])
    async with flavour.pool(params) as pool:
        consumers = [flavour.consumer(pool, "orders", concurrency=2) for _ in shares.recorders]
        one, two, three = (
            running(consumer, recorder.handle)
            for consumer, recorder in zip(consumers, shares.recorders, strict=True)
        )
        async with one, two, three:
            await until(is_settled(client, "orders"), timeout=120)
            taken = [(await consumer.health()).counters.taken_over for consumer in consumers]
    assert len(shares.ids) == len(set(shares.ids)) == count
    assert sum(taken) == count


async def test_a_large_prefetch(flavour, busy_server, until, release):
    """What Lua's stack cannot take at once is taken, and handed back, in parts."""
    server, client = busy_server
    count = 12_000 if IS_FULL else 2_000
    leave_behind(client, count, 3)
    params = StepRedisPoolParams.from_url(server.url)

    async def hang_in_the_end(message):
        if len(handled.messages) > count - 20:
            await release.wait()

    handled = Recorder(hang_in_the_end)
    async with flavour.pool(params) as pool:
        options = {"prefetch": 20_000, "concurrency": 10, "grace_seconds": 0.1}
        async with running(flavour.consumer(pool, "orders", **options), handled.handle):
            await until(lambda: len(handled.messages) >= count - 10, timeout=120)
            # As many as may be are held ready again, beside those that hang.
            with client.pipeline() as pipe:
                for n in range(count):
                    pipe.xadd("orders", {"n": n})
                pipe.execute()
            await asyncio.sleep(0.5)
        assert members(client, "orders") == set()
        assert client.zcard("{orders}.due:g") == pending(client, "orders") >= 10
