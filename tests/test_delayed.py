"""Delayed publishing: in the stream when due, once, by whoever is first; until then revocable."""

import asyncio
import itertools
import logging
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest

from consuming import Recorder, counted, is_settled, members, running
from step_redis import (
    ConfigurationError,
    ConnectionFailedError,
    DuplicateConflict,
    EncodeError,
    NotAStreamError,
    PermissionDeniedError,
    ServerOutOfMemoryError,
    StepRedisPoolParams,
    StreamNotFoundError,
)


def delayed_of(key):
    return f"{{{key}}}.delayed"


def numbers(redis, key):
    return [int(fields[b"n"]) for _, fields in redis.xrange(key)]


def handled_numbers(handled):
    return [message.data["n"] for message in handled.messages]


def soon(seconds=0.2):
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.fixture
def due(stream, key, until):
    """Wait until so many messages were appended by `publish_due`."""

    async def due(count):
        moved = 0

        async def look():
            nonlocal moved
            moved += await stream.publish_due(key)
            return moved >= count

        await until(look)
        assert moved == count

    return due


# --- Until it is due ------------------------------------------------------------------------


async def test_it_is_not_in_the_stream_yet(stream, key, redis):
    """A delayed message has a handle and no entry; there need not be a stream."""
    handle = await stream.publish_message(key, {"n": 1}, delay_seconds=60)
    assert isinstance(handle, str)
    assert not redis.exists(key)
    assert await stream.publish_due(key) == 0
    assert not redis.exists(key)
    assert (await stream.delayed(key)).count == 1


async def test_what_is_delayed_can_be_listed(stream, key):
    """All are counted; those that are due first are shown, with all that was published."""
    message = {"n": 1, "text": "Zoë", "raw": b"\xff", "list": [1, None], "none": None}
    now = datetime.now(UTC)
    later = await stream.publish_message(key, {}, deliver_at=now + timedelta(hours=2))
    sooner = await stream.publish_message(
        key, message, deliver_at=now + timedelta(hours=1), headers={"trace": "é"}
    )
    found = await stream.delayed(key)
    assert found.count == 2
    first, second = found.messages
    assert (first.handle, first.data, first.headers) == (sooner, message, {"trace": "é"})
    assert abs(first.deliver_at - now - timedelta(hours=1)) < timedelta(milliseconds=1)
    assert first.deliver_at.utcoffset() == timedelta(0)
    assert (second.handle, second.data, second.headers) == (later, {}, {})


async def test_how_many_are_listed(stream, key):
    """`limit` says how many are shown, a hundred unless it is given; all are counted."""
    for n in range(120):
        await stream.publish_message(key, {"n": n}, delay_seconds=60)
    for limit, shown in (({}, 100), ({"limit": 3}, 3), ({"limit": 0}, 0), ({"limit": 500}, 120)):
        found = await stream.delayed(key, **limit)
        assert found.count == 120
        assert [message.data["n"] for message in found.messages] == list(range(shown))


async def test_nothing_is_delayed(stream, key, redis):
    """Then there is nothing to list and nothing to append; nothing is made."""
    found = await stream.delayed(key)
    assert (found.count, found.messages) == (0, [])
    assert await stream.publish_due(key) == 0
    assert not redis.keys(f"*{key}*")


async def test_the_time_of_a_delay(stream, key, redis):
    """It counts from when the server took the message."""
    await stream.publish_message(key, {"n": 1}, delay_seconds=1.5)
    seconds, micros = redis.time()
    [message] = (await stream.delayed(key)).messages
    left = message.deliver_at.timestamp() - seconds - micros / 1e6
    assert 0.5 < left <= 1.5


async def test_times_of_other_zones(stream, key):
    """A time is the same in each time zone."""
    zone = timezone(timedelta(hours=-5, minutes=-30))
    moment = datetime(2100, 1, 2, 3, 4, 5, 678000, zone)
    await stream.publish_message(key, {"n": 1}, deliver_at=moment)
    [message] = (await stream.delayed(key)).messages
    assert message.deliver_at == moment


async def test_what_is_delayed_does_not_show_its_data(stream, key):
    """As elsewhere, messages stay out of what may be logged."""
    await stream.publish_message(
        key, {"n": "secret"}, delay_seconds=60, headers={"token": "secret"}
    )
    assert "secret" not in repr(await stream.delayed(key))


async def test_what_is_delayed_does_not_expire(stream, key, redis, due):
    """The stream's time to live is none of what waits beside it."""
    await stream.create_input_stream(key, "g", 1000)
    await stream.publish_message(key, {"n": 1}, delay_seconds=0.1)
    assert redis.ttl(delayed_of(key)) == -1
    redis.delete(key)
    await due(1)
    assert numbers(redis, key) == [1]


# --- When it is due -------------------------------------------------------------------------


async def test_it_is_published_when_due(stream, key, redis, due):
    """Not before, and as it was given; nothing is left beside the stream."""
    await stream.create_input_stream(key, "g")
    message, moment = {"n": 1, "raw": b"\xff"}, soon()
    await stream.publish_message(key, message, deliver_at=moment, headers={"h": "x"})
    await due(1)
    [received] = await stream.receive_message(key, "g", "c", count=10)
    assert (received["data"], received["headers"]) == (message, {"h": "x"})
    assert int(received["id"].partition("-")[0]) >= int(moment.timestamp() * 1000)
    assert not redis.exists(delayed_of(key))
    assert (await stream.delayed(key)).count == 0


async def test_what_is_not_due_stays(stream, key, redis, due):
    """Only what is due is appended, in the order in which it is due."""
    for n, seconds in enumerate((0.3, 60, 0.1, 0.2, 0)):
        await stream.publish_message(key, {"n": n}, delay_seconds=seconds)
    await due(4)
    assert numbers(redis, key) == [4, 2, 3, 0]
    [left] = (await stream.delayed(key)).messages
    assert left.data == {"n": 1}


async def test_first_come_first_served(flavour, pool, stream, key, redis, due):
    """Those that are due at the same time come in the order in which they were published."""
    moment = soon(1)
    async with flavour.stream(pool) as other:
        for n in range(300):
            by = other if n % 7 == 0 else stream
            await by.publish_message(key, {"n": n}, deliver_at=moment)
    listed = (await stream.delayed(key, 1000)).messages
    assert [message.data["n"] for message in listed] == list(range(300))
    await due(300)
    assert numbers(redis, key) == list(range(300))


@pytest.mark.parametrize(
    "when",
    [
        {"delay_seconds": 0},
        {"delay_seconds": 0.0001},
        {"deliver_at": datetime(1970, 1, 1, tzinfo=UTC)},
        {"deliver_at": datetime(1, 1, 1, tzinfo=UTC)},
        {"deliver_at": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
async def test_past_times_are_due_at_once(stream, key, redis, due, when):
    """The message goes the same way as others, with a handle."""
    handle = await stream.publish_message(key, {"n": 1}, **when)
    assert (await stream.delayed(key)).messages[0].handle == handle
    await due(1)
    assert numbers(redis, key) == [1]


async def test_the_far_future(stream, key):
    """The last moment that Python knows is a time like any other."""
    moment = datetime.max.replace(tzinfo=UTC)
    handle = await stream.publish_message(key, {"n": 1}, deliver_at=moment)
    [message] = (await stream.delayed(key)).messages
    assert message.deliver_at.year == 9999
    assert await stream.cancel_delayed(handle) is True


async def test_more_than_one_call_moves(stream, key, redis, due):
    """All that is due is appended by one `publish_due`, however much it is."""
    for n in range(450):
        await stream.publish_message(key, {"n": n}, delay_seconds=0)
    assert await stream.publish_due(key) == 450
    assert numbers(redis, key) == list(range(450))


async def test_other_streams_are_left_alone(stream, key, redis):
    """Each stream has delayed messages of its own."""
    other = f"{key}:other"
    for name in (key, other):
        await stream.publish_message(name, {"n": 1}, delay_seconds=0)
    assert await stream.publish_due(key) == 1
    assert (await stream.delayed(other)).count == 1
    assert not redis.exists(other)


async def test_max_len_is_applied_when_it_is_due(stream, key, redis):
    """The stream is trimmed when the message is appended, not before."""
    for n in range(20):
        await stream.publish_message(key, {"n": n})
    await stream.publish_message(key, {"n": 20}, 5, exact_trim=True, delay_seconds=0)
    assert redis.xlen(key) == 20
    assert await stream.publish_due(key) == 1
    assert numbers(redis, key) == [16, 17, 18, 19, 20]
    await stream.publish_message(key, {"n": 21}, 1, delay_seconds=0)
    await stream.publish_due(key)
    assert redis.xlen(key) == 6


async def test_a_stream_that_is_not_to_be_made(stream, key, redis):
    """create=False refuses when the message is published; later the stream is made again."""
    with pytest.raises(StreamNotFoundError):
        await stream.publish_message(key, {"n": 1}, delay_seconds=0, create=False)
    assert not redis.keys(f"{{{key}}}.delayed")
    await stream.create_input_stream(key, "g")
    await stream.publish_message(key, {"n": 2}, delay_seconds=0, create=False)
    redis.delete(key)
    assert await stream.publish_due(key) == 1
    assert numbers(redis, key) == [2]


async def test_large_messages(stream, key, redis):
    """Messages of megabytes, and of as many fields as a script can write, are delayed whole."""
    await stream.create_input_stream(key, "g")
    messages = [{"text": "x" * 5_000_000}, {"raw": bytes(range(256)) * 10_000}]
    messages.append({f"field {n}": str(n) for n in range(3900)})
    for message in messages:
        await stream.publish_message(key, message, delay_seconds=0)
    listed = (await stream.delayed(key)).messages
    assert [message.data for message in listed] == messages
    assert await stream.publish_due(key) == 3
    received = await stream.receive_message(key, "g", "c", count=10)
    assert [message["data"] for message in received] == messages


async def test_too_many_fields(stream, key, redis):
    """More fields than a script can write are refused, and the way out is told."""
    with pytest.raises(EncodeError, match="fields"):
        await stream.publish_message(key, {str(n): "" for n in range(5000)}, delay_seconds=1)
    assert not redis.exists(delayed_of(key))


# --- By consumers ---------------------------------------------------------------------------


async def test_a_running_consumer_publishes_it(flavour, pool, stream, key, redis, until):
    """Within about a second of when it is due it was handled, once."""
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(lambda: members(redis, key))
        await stream.publish_message(key, {"n": 1}, delay_seconds=0.5, headers={"h": "x"})
        due_at = time.monotonic() + 0.5
        await until(lambda: handled.ids)
        assert -0.1 < handled.times[0] - due_at < 2
        await until(is_settled(redis, key))
    [message] = handled.messages
    assert (message.data, message.headers, message.delivery_count) == ({"n": 1}, {"h": "x"}, 1)
    assert redis.xlen(key) == 1


async def test_each_group_gets_it(flavour, pool, stream, key, redis, until):
    """It becomes an entry of the stream, whichever group's consumer came first."""
    handled = {group: Recorder() for group in ("one", "two")}
    one, two = (flavour.consumer(pool, key, group) for group in handled)
    async with running(one, handled["one"].handle), running(two, handled["two"].handle):
        await until(lambda: members(redis, key, "one") and members(redis, key, "two"))
        await stream.publish_message(key, {"n": 1}, delay_seconds=0.1)
        await until(lambda: handled["one"].ids and handled["two"].ids)
    assert handled["one"].ids == handled["two"].ids
    assert redis.xlen(key) == 1


async def test_each_stream_of_a_consumer(flavour, pool, stream, key, until):
    """A consumer of several streams publishes what is due in each."""
    names, handled = [key, f"{key}:other"], Recorder()
    for n, name in enumerate(names):
        await stream.publish_message(name, {"n": n}, delay_seconds=0)
    async with running(flavour.consumer(pool, names), handled.handle):
        await until(lambda: len(handled.ids) == 2)
    assert sorted(handled_numbers(handled)) == [0, 1]


async def test_a_consumer_publishes_much_at_once(
    flavour, pool, stream, key, redis, until, monkeypatch
):
    """What is due at once is published at once, not a page with every poll."""
    for module in ("publishing", "_async.keeper", "_sync.keeper"):
        monkeypatch.setattr(f"step_redis.{module}.DUE_LIMIT", 5)
    for n in range(300):
        await stream.publish_message(key, {"n": n}, delay_seconds=0)
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        # By polls of half a second alone it would take thirty.
        await until(lambda: redis.xlen(key) == 300, timeout=20)
        await until(is_settled(redis, key), timeout=20)
    assert sorted(handled_numbers(handled)) == list(range(300))
    assert numbers(redis, key) == list(range(300))


async def test_nothing_is_published_twice(flavour, pool, params, stream, key, redis, until):
    """However many consumers and others are after it, each message is published once."""
    handled, total = Recorder(), 400
    moved, over = [], False

    async def move(stream):
        while not over:
            moved.append(await stream.publish_due(key))

    async with AsyncExitStack() as stack:
        consumers = [flavour.consumer(pool, key, name=f"c{n}") for n in range(3)]
        for consumer in consumers:
            await stack.enter_async_context(running(consumer, handled.handle))
        others = await stack.enter_async_context(flavour.pool(params))
        streams = [await stack.enter_async_context(flavour.stream(others)) for _ in range(4)]
        tasks = [asyncio.ensure_future(move(stream)) for stream in streams]
        moments = itertools.cycle([soon(0.3), soon(0.6), soon(0.9)])
        for n in range(total):
            await stream.publish_message(key, {"n": n}, deliver_at=next(moments))
        await until(lambda: len(handled.ids) >= total, timeout=20)
        await until(is_settled(redis, key))
        over = True
        await asyncio.gather(*tasks)
    assert sorted(handled_numbers(handled)) == list(range(total))
    assert redis.xlen(key) == total
    assert 0 < sum(moved) <= total
    assert not redis.exists(delayed_of(key))


async def test_a_consumer_that_may_not_publish(flavour, private_server, until, caplog):
    """It goes on consuming and says once why delayed messages stay; they are not lost."""
    server = private_server()
    few = StepRedisPoolParams.from_url(server.url, username="few", password="pw")
    handled = Recorder()
    with server.client() as redis:
        redis.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "+@all", "-xadd")
        async with (
            flavour.pool(StepRedisPoolParams.from_url(server.url)) as pool,
            flavour.stream(pool) as stream,
            flavour.pool(few) as pool_of_few,
        ):
            await stream.publish_message("orders", {"n": 0}, delay_seconds=0)
            async with running(flavour.consumer(pool_of_few, "orders"), handled.handle):
                await until(lambda: "are not published while this lasts" in caplog.text)
                for n in range(1, 30):
                    await stream.publish_message("orders", {"n": n})
                    await asyncio.sleep(0.05)
                await until(lambda: len(handled.ids) == 29)
                assert (await stream.delayed("orders")).count == 1
                redis.execute_command("ACL", "SETUSER", "few", "+xadd")
                await until(lambda: 0 in handled_numbers(handled))
    told = [record for record in caplog.records if "are not published" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.ERROR]
    assert "'orders'" in told[0].getMessage()
    assert "ACL SETUSER" in told[0].getMessage()


async def test_a_consumer_beside_a_key_of_another_type(
    flavour, pool, stream, key, redis, until, caplog
):
    """If something else is where delayed messages are kept, it goes on and says so once."""
    redis.set(delayed_of(key), "text")
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle) as run:
        await until(lambda: "are not published while this lasts" in caplog.text)
        for n in range(30):
            await stream.publish_message(key, {"n": n})
            await asyncio.sleep(0.05)
        await until(lambda: len(handled.ids) == 30)
        await until(is_settled(redis, key))
        assert not run.done()
        redis.delete(delayed_of(key))
        await stream.publish_message(key, {"n": 30}, delay_seconds=0)
        await until(lambda: len(handled.ids) == 31)
    told = [record for record in caplog.records if "are not published" in record.getMessage()]
    assert len(told) == 1
    assert handled_numbers(handled) == list(range(31))


# --- Taken back -----------------------------------------------------------------------------


async def test_cancelling(stream, key, redis):
    """What was taken back is never published; it is taken back once."""
    handles = [await stream.publish_message(key, {"n": n}, delay_seconds=0) for n in range(3)]
    assert await stream.cancel_delayed(handles[1]) is True
    assert await stream.cancel_delayed(handles[1]) is False
    assert [message.handle for message in (await stream.delayed(key)).messages] == [
        handles[0],
        handles[2],
    ]
    assert await stream.publish_due(key) == 2
    assert numbers(redis, key) == [0, 2]


async def test_cancelling_what_is_published(stream, key, redis):
    """Then it is too late, and the entry stays."""
    handle = await stream.publish_message(key, {"n": 1}, delay_seconds=0)
    await stream.publish_due(key)
    assert await stream.cancel_delayed(handle) is False
    assert redis.xlen(key) == 1


async def test_cancelling_amid_many(stream, key, redis):
    """Any of many that are due at the same time is found, the first and the last one too."""
    moment = soon(60)
    handles = [await stream.publish_message(key, {"n": n}, deliver_at=moment) for n in range(100)]
    assert len(set(handles)) == 100
    cancelled = {0, 1, 9, 10, 50, 63, 64, 98, 99}
    for n in cancelled:
        assert await stream.cancel_delayed(handles[n]) is True
        assert await stream.cancel_delayed(handles[n]) is False
    left = [message.data["n"] for message in (await stream.delayed(key)).messages]
    assert left == [n for n in range(100) if n not in cancelled]
    for n in left:
        assert await stream.cancel_delayed(handles[n]) is True
    assert not redis.exists(delayed_of(key))


@pytest.mark.parametrize("dedup_id", [None, "order-17", "a:b c%é"])
@pytest.mark.parametrize("suffix", ["", ":with colons", " spaces % é"])
async def test_a_handle_is_a_text_for_anyone(flavour, params, stream, key, suffix, dedup_id):
    """It can be kept anywhere and used by another process, whatever the names are."""
    name = f"{key}{suffix}"
    handle = await stream.publish_message(name, {"n": 1}, delay_seconds=60, dedup_id=dedup_id)
    assert handle.isascii()
    assert handle.isprintable()
    assert " " not in handle
    assert (await stream.delayed(name)).messages[0].handle == handle
    async with flavour.pool(params) as pool, flavour.stream(pool) as other:
        assert await other.cancel_delayed(handle) is True
        assert (await other.delayed(name)).count == 0


async def test_a_cancelled_key_is_free(stream, key, redis):
    """After its message was taken back a dedup_id can be used for another one."""
    options = {"dedup_id": "order-17"}
    first = await stream.publish_message(key, {"n": 1}, delay_seconds=60, **options)
    assert await stream.cancel_delayed(first) is True
    second = await stream.publish_message(key, {"n": 2}, delay_seconds=60, **options)
    assert second != first
    assert await stream.cancel_delayed(first) is False
    with pytest.raises(DuplicateConflict):
        await stream.publish_message(key, {"n": 1}, **options)
    assert (await stream.delayed(key)).count == 1


async def test_a_key_is_not_freed_too_late(stream, key, redis):
    """Cancelling what is in the stream already leaves its dedup_id taken."""
    options = {"dedup_id": "order-17", "delay_seconds": 0}
    handle = await stream.publish_message(key, {"n": 1}, **options)
    await stream.publish_due(key)
    assert await stream.cancel_delayed(handle) is False
    assert await stream.publish_message(key, {"n": 1}, **options) == handle
    assert redis.xlen(key) == 1


async def test_cancelling_while_it_is_published(flavour, params, pool, stream, key, redis):
    """Of cancelling and publishing at once one wins, and both say the same."""
    handles = [await stream.publish_message(key, {"n": n}, delay_seconds=0) for n in range(300)]
    async with flavour.pool(params) as other_pool, flavour.stream(other_pool) as other:
        moving = asyncio.ensure_future(other.publish_due(key))
        results = await asyncio.gather(*(stream.cancel_delayed(h) for h in reversed(handles)))
        moved = await moving
    assert moved + sum(results) == 300
    cancelled = {n for n, result in enumerate(reversed(results)) if result}
    assert numbers(redis, key) == [n for n in range(300) if n not in cancelled]


# --- When things go wrong -------------------------------------------------------------------


async def test_a_restart_of_the_server(flavour, private_server):
    """A server that keeps its data keeps what is delayed."""
    server = private_server("--appendonly", "yes", "--appendfsync", "always")
    params = StepRedisPoolParams.from_url(server.url, socket_connect_timeout=10)
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        handles = [
            await stream.publish_message("orders", {"n": n}, delay_seconds=n) for n in (0, 600)
        ]
        await asyncio.to_thread(server.restart)
        assert [message.handle for message in (await stream.delayed("orders")).messages] == handles
        assert await stream.publish_due("orders") == 1
        await asyncio.to_thread(server.restart)
        assert await stream.publish_due("orders") == 0
        assert await stream.cancel_delayed(handles[1]) is True
    with server.client() as redis:
        assert numbers(redis, "orders") == [0]


@pytest.fixture
async def through_proxy(flavour, params, proxy):
    """A stream whose connections go through the proxy."""
    behind = attrs.evolve(params, host=proxy.host, port=proxy.port)
    async with flavour.pool(behind) as pool, flavour.stream(pool) as stream:
        await stream.ping()
        yield stream


async def test_a_lost_reply_to_delaying(through_proxy, proxy, key):
    """It is asked for again: the message is delayed once, and its handle comes back."""
    await through_proxy.publish_message(key, {"n": 0}, delay_seconds=60)
    proxy.drop_replies(b"EVALSHA")
    handle = await through_proxy.publish_message(key, {"n": 1}, delay_seconds=60)
    found = await through_proxy.delayed(key)
    assert found.count == 2
    assert found.messages[1].handle == handle


async def test_a_lost_reply_to_cancelling(through_proxy, proxy, key):
    """It is asked for again, and tells that the message was taken back."""
    handles = [
        await through_proxy.publish_message(key, {"n": n}, delay_seconds=60) for n in range(2)
    ]
    await through_proxy.cancel_delayed(handles[0])
    proxy.drop_replies(b"EVALSHA")
    assert await through_proxy.cancel_delayed(handles[1]) is True
    assert (await through_proxy.delayed(key)).count == 0


async def test_a_lost_reply_to_publishing_what_is_due(through_proxy, proxy, key, redis):
    """The error says that some may have been appended; calling it again appends none twice."""
    for n in range(3):
        await through_proxy.publish_message(key, {"n": n}, delay_seconds=0)
    # The server knows the script, so that the reply that is lost is that of the script.
    await through_proxy.publish_due(f"{key}:other")
    proxy.drop_replies(b"EVALSHA")
    with pytest.raises(ConnectionFailedError, match="appends none twice") as caught:
        await through_proxy.publish_due(key)
    assert caught.value.outcome_unknown
    assert await through_proxy.publish_due(key) == 0
    assert numbers(redis, key) == [0, 1, 2]


async def test_a_stream_of_another_type(stream, key, redis):
    """What cannot be appended stays delayed until it can."""
    await stream.publish_message(key, {"n": 1}, delay_seconds=0)
    redis.set(key, "text")
    with pytest.raises(NotAStreamError, match=key):
        await stream.publish_due(key)
    assert (await stream.delayed(key)).count == 1
    redis.delete(key)
    assert await stream.publish_due(key) == 1


async def test_delayed_messages_of_another_type(stream, key, redis):
    """If something else is where they are kept, every call says so and changes nothing."""
    handle = await stream.publish_message(key, {"n": 1}, delay_seconds=60, dedup_id="k")
    redis.delete(delayed_of(key))
    redis.set(delayed_of(key), "text")
    calls = [
        stream.publish_message(key, {"n": 2}, delay_seconds=60),
        stream.publish_due(key),
        stream.delayed(key),
        stream.cancel_delayed(handle),
    ]
    for call in calls:
        with pytest.raises(NotAStreamError, match="a key beside it"):
            await call
    assert redis.get(delayed_of(key)) == b"text"
    assert redis.exists(f"{{{key}}}.dedup:k")
    assert not redis.exists(key)
    await stream.publish_message(key, {"n": 3})


async def test_a_server_without_memory(flavour, private_server):
    """A full server delays nothing and appends nothing; what is delayed stays so."""
    server = private_server()
    params = StepRedisPoolParams.from_url(server.url)
    with server.client() as redis:
        async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
            await stream.publish_message("orders", {"n": 1}, delay_seconds=0)
            redis.config_set("maxmemory", "1")
            with pytest.raises(ServerOutOfMemoryError):
                await stream.publish_message("orders", {"n": 2}, delay_seconds=0)
            with pytest.raises(ServerOutOfMemoryError):
                await stream.publish_due("orders")
            redis.config_set("maxmemory", "0")
            assert await stream.publish_due("orders") == 1
        assert numbers(redis, "orders") == [1]


@pytest.mark.parametrize("missing", ["zadd", "hset"])
async def test_a_user_who_may_not_delay(flavour, private_server, missing):
    """Without a right that it takes nothing is delayed."""
    server = private_server()
    with server.client() as redis:
        rules = f"on >pw ~* +@all -{missing}".split()
        redis.execute_command("ACL", "SETUSER", "few", *rules)
        params = StepRedisPoolParams.from_url(server.url, username="few", password="pw")
        async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
            with pytest.raises(PermissionDeniedError):
                await stream.publish_message("orders", {"n": 1}, delay_seconds=0)
        assert not redis.exists("{orders}.delayed")


# --- What is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "error"),
    [
        ({"deliver_at": datetime(2100, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is the point
        ({"deliver_at": "2100-01-01"}, "deliver_at"),
        ({"deliver_at": 4102444800}, "deliver_at"),
        ({"delay_seconds": 1, "deliver_at": datetime(2100, 1, 1, tzinfo=UTC)}, "not both"),
        ({"delay_seconds": -1}, "delay_seconds"),
        ({"delay_seconds": "1"}, "delay_seconds"),
        ({"delay_seconds": True}, "delay_seconds"),
        ({"delay_seconds": float("nan")}, "delay_seconds"),
        ({"delay_seconds": 1e9}, "delay_seconds"),
        ({"delay_seconds": timedelta(seconds=1)}, "delay_seconds"),
    ],
    ids=str,
)
async def test_what_is_no_time(stream, key, redis, when, error):
    """A time has a time zone, a delay is not negative, and there is one of them."""
    with pytest.raises(ConfigurationError, match=error):
        await stream.publish_message(key, {"n": 1}, **when)
    assert not redis.keys(f"*{key}*")


@pytest.mark.parametrize(
    "handle",
    ["", "1795549936036-0", "1:2:3", "order-17", None, 17, b"1:2", "x" * 1000, "a:b:c:d:e"],
    ids=lambda handle: repr(handle)[:20],
)
async def test_what_is_no_handle(stream, handle):
    """What `publish_message` did not return for a delayed message is refused."""
    with pytest.raises(ConfigurationError, match="handle"):
        await stream.cancel_delayed(handle)


@pytest.mark.parametrize("limit", [-1, 1.5, None, "1", True], ids=repr)
async def test_what_is_no_limit(stream, key, limit):
    """A limit is a whole number that is not negative."""
    with pytest.raises(ConfigurationError, match="limit"):
        await stream.delayed(key, limit)


async def test_a_name_that_no_key_can_be_beside(stream, key, redis):
    """Of a stream whose name has braces that are no hash tag nothing is delayed."""
    name = f"{key}{{"
    for call in (
        stream.publish_message(name, {"n": 1}, delay_seconds=1),
        stream.publish_due(name),
        stream.delayed(name),
    ):
        with pytest.raises(ConfigurationError, match="braces"):
            await call
    assert not redis.keys(f"*{key}*")


async def test_settling_counts_delayed_messages_like_others(
    flavour, pool, stream, key, redis, until
):
    """A delayed message that fails is delivered again as any other."""

    async def fail_once(message):
        if message.delivery_count == 1:
            raise ValueError("made up")

    handled = Recorder(fail_once)
    consumer = flavour.consumer(pool, key)
    async with running(consumer, handled.handle):
        await stream.publish_message(key, {"n": 1}, delay_seconds=0)
        await until(lambda: len(handled.ids) == 2, timeout=20)
        await until(lambda: counted(consumer, acknowledged=1))
    assert handled.counts == [1, 2]
    assert redis.xlen(key) == 1
