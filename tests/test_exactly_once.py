"""Publishing under faults: every id that is returned was written once, whatever was lost."""

import asyncio
from collections import Counter
from contextlib import suppress

import attrs
import pytest

from step_redis import EncodeError, PartlyPublishedError, StepRedisError
from step_redis.scripts import script

CHUNK = 500

FAULTS = {
    "request dropped": lambda proxy, *args, **kw: proxy.drop_requests(*args, **kw),
    "reply dropped": lambda proxy, *args, **kw: proxy.drop_replies(*args, **kw),
    "reply cut after 1": lambda proxy, *args, **kw: proxy.cut_reply_after(1, *args, **kw),
    "reply cut after 5": lambda proxy, *args, **kw: proxy.cut_reply_after(5, *args, **kw),
    "reply cut after 20": lambda proxy, *args, **kw: proxy.cut_reply_after(20, *args, **kw),
    "reply held": lambda proxy, *args, **kw: proxy.hold_replies(*args, times=1, **kw),
    "request late": lambda proxy, *args, **kw: proxy.hold_requests(*args, times=1, **kw),
}

# For replies that are shorter.
SHORT = {name: fault for name, fault in FAULTS.items() if name != "reply cut after 20"}

each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@pytest.fixture
async def behind(flavour, params, proxy):
    """A pool whose connections go through the proxy, and which does not wait long for replies."""
    through = attrs.evolve(
        params, host=proxy.host, port=proxy.port, socket_timeout=0.25, socket_connect_timeout=10
    )
    async with flavour.pool(through) as pool:
        yield pool


@pytest.fixture
async def stream(flavour, behind, redis):
    """A stream object behind the proxy; the server has the scripts."""
    load_scripts(redis)
    async with flavour.stream(behind) as stream:
        yield stream


@pytest.fixture
def let_go(proxy, until):
    """Let what was held go on its way, and wait until it has arrived."""

    async def let_go():
        proxy.release_replies()
        proxy.release_requests()
        await until(lambda: not proxy.unanswered)

    return let_go


@pytest.fixture
def lose_ledger(proxy, redis, key, until):
    """Lose the reply to a call, then the ledger, before the call can be repeated."""

    async def lose_ledger(matching, call, took_effect):
        proxy.refuse()
        proxy.drop_replies(matching)
        calling = asyncio.ensure_future(call)
        await until(lambda: took_effect() and not proxy.open_connections)
        assert redis.delete(*ledgers(redis, key))
        proxy.accept()
        return await calling

    return lose_ledger


def load_scripts(redis):
    for name in ("publish", "publish_once", "cancel", "publish_due"):
        redis.script_load(script(name).text)


def ledgers(redis, key):
    """The ledgers of producers of a stream."""
    return list(redis.scan_iter(match=f"{{{key}}}.ledger:*", count=1000))


def entries(redis, key):
    """The entries of a stream: id and text of the message."""
    return [(entry_id.decode(), fields[b"m"].decode()) for entry_id, fields in redis.xrange(key)]


def texts(redis, key):
    return [text for _, text in entries(redis, key)]


def numbered(count):
    """Messages whose texts no other's contains, so that a fault can be told which one to hit."""
    return [{"m": f"m{number}."} for number in range(count)]


# One fault, at one point.


@pytest.mark.parametrize("before", [0, 1], ids=["first operation", "later operation"])
@each_fault
async def test_a_message_is_written_once(stream, proxy, redis, key, let_go, fault, before):
    """The first operation of a producer and later ones are carried out once."""
    ids = [await stream.publish_message(key, {"m": "before"}) for _ in range(before)]
    fault(proxy, b"struck")
    ids += [await stream.publish_message(key, {"m": text}) for text in ("struck", "after")]
    await let_go()
    ids.append(await stream.publish_message(key, {"m": "last"}))
    assert entries(redis, key) == list(
        zip(ids, [*["before"] * before, "struck", "after", "last"], strict=True)
    )
    assert proxy.struck.total() == 1


@pytest.mark.parametrize("chunk", [0, 1, 3])
@each_fault
async def test_a_batch_is_written_once(stream, proxy, redis, key, let_go, fault, chunk):
    """Whichever of the chunks is struck, all are written once and in order."""
    messages = numbered(4 * CHUNK)
    fault(proxy, messages[chunk * CHUNK + 200]["m"].encode())
    ids = await stream.publish_messages(key, iter(messages))
    await let_go()
    ids.append(await stream.publish_message(key, {"m": "last"}))
    expected = [*(message["m"] for message in messages), "last"]
    assert entries(redis, key) == list(zip(ids, expected, strict=True))
    assert proxy.struck.total() == 1


@each_fault
async def test_several_streams_are_written_once(stream, proxy, redis, key, let_go, fault):
    """Chunks of several streams on one connection are each found out about."""
    streams = [key, f"{key}:b", f"{key}:c"]
    fault(proxy, f"{key}:b".encode())
    ids = await stream.publish_many({name: numbered(CHUNK + 10) for name in streams})
    await let_go()
    for name in streams:
        expected = [message["m"] for message in numbered(CHUNK + 10)]
        assert entries(redis, name) == list(zip(ids[name], expected, strict=True))


@each_fault
async def test_a_message_under_a_key_is_written_once(stream, proxy, redis, key, let_go, fault):
    """The first publishing under a user's key and the next one return the same id."""
    await stream.publish_message(key, {"m": "before"})
    fault(proxy, b"struck")
    first = await stream.publish_message(key, {"m": "struck"}, dedup_id="d")
    await let_go()
    assert await stream.publish_message(key, {"m": "struck"}, dedup_id="d") == first
    assert entries(redis, key)[1:] == [(first, "struck")]
    assert proxy.struck.total() == 1


@each_fault
async def test_a_delayed_message_is_delayed_once(stream, proxy, redis, key, let_go, fault):
    """It is delayed once, and its handle is the one that is returned."""
    await stream.publish_message(key, {"m": "before"})
    fault(proxy, b"struck")
    handle = await stream.publish_message(key, {"m": "struck"}, delay_seconds=60)
    await let_go()
    delayed = await stream.delayed(key)
    assert [message.handle for message in delayed.messages] == [handle]
    assert delayed.count == 1
    assert await stream.cancel_delayed(handle)
    assert (await stream.delayed(key)).count == 0
    assert proxy.struck.total() == 1


@each_fault
async def test_a_message_is_cancelled_once(stream, proxy, redis, key, let_go, fault):
    """Cancelling tells what came of it, though it finds nothing the second time."""
    handle = await stream.publish_message(key, {"m": "struck"}, delay_seconds=60, dedup_id="d")
    fault(proxy, handle.split(":")[1].encode())
    assert await stream.cancel_delayed(handle) is True
    # Its key is free again, which an old command does not change.
    again = await stream.publish_message(key, {"m": "again"}, delay_seconds=60, dedup_id="d")
    await let_go()
    assert await stream.cancel_delayed(handle) is False
    assert [message.handle for message in (await stream.delayed(key)).messages] == [again]
    assert proxy.struck.total() == 1


@pytest.mark.parametrize("fault", SHORT.values(), ids=SHORT)
async def test_what_is_due_is_moved_once(stream, proxy, redis, key, let_go, fault):
    """If it is not known whether messages were moved, moving them again moves none twice."""
    for text in ("a", "b"):
        await stream.publish_message(key, {"m": text}, delay_seconds=0)
    fault(proxy, script("publish_due").sha.encode())
    with pytest.raises(StepRedisError) as caught:
        await stream.publish_due(key)
    assert caught.value.outcome_unknown
    await stream.publish_due(key)
    await let_go()
    assert texts(redis, key) == ["a", "b"]


@pytest.mark.parametrize("count", [1, 3 * CHUNK])
@each_fault
async def test_a_script_that_is_sent_along(stream, proxy, redis, key, let_go, fault, count):
    """The same holds when the server does not have the script and gets its text."""
    redis.script_flush()
    messages = numbered(count)
    fault(proxy, messages[0]["m"].encode(), after=1)
    ids = await stream.publish_messages(key, messages)
    await let_go()
    assert entries(redis, key) == list(
        zip(ids, [message["m"] for message in messages], strict=True)
    )
    assert proxy.struck.total() == 1


@pytest.mark.parametrize("between", [0, 1, 2, 5])
async def test_a_command_that_comes_after_later_ones(
    stream, proxy, redis, key, let_go, until, between
):
    """An old command changes nothing, however much its producer did since its retry."""
    await stream.publish_message(key, {"m": "before"})
    proxy.hold_requests(b"struck", times=1)
    await stream.publish_message(key, {"m": "struck"})
    for _ in range(between):
        await stream.publish_message(key, {"m": "between"})
    await let_go()
    await stream.publish_message(key, {"m": "last"})
    assert texts(redis, key) == ["before", "struck", *["between"] * between, "last"]
    assert proxy.late_requests == 1
    assert len(ledgers(redis, key)) == 1


async def test_every_attempt_is_late(flavour, behind, proxy, redis, key, until):
    """A call that is given up may be carried out later, once, though it was sent several times."""
    async with flavour.stream(behind, retry_seconds=1) as stream:
        await stream.publish_message(key, {"m": "before"})
        proxy.hold_requests(b"struck")
        with pytest.raises(StepRedisError) as caught:
            await stream.publish_message(key, {"m": "struck"})
        assert caught.value.outcome_unknown
        assert proxy.held_requests > 2
        await stream.publish_message(key, {"m": "after"})
        proxy.release_requests()
        await until(lambda: not proxy.unanswered)
        await stream.publish_message(key, {"m": "last"})
    assert texts(redis, key) == ["before", "after", "struck", "last"]


async def test_a_chunk_never_overtakes_another(stream, proxy, redis, key, until):
    """A chunk that arrives when the one before it was not carried out is not carried out either."""
    before = await stream.publish_message(key, {"m": "before"})
    redis.script_flush()
    messages = numbered(3 * CHUNK)
    proxy.hold_requests(b"m700.", times=1)
    publishing = asyncio.ensure_future(stream.publish_messages(key, messages))
    await until(lambda: proxy.held_requests and not proxy.unanswered)
    load_scripts(redis)
    proxy.release_requests()
    ids = [before, *await publishing]
    expected = ["before", *(message["m"] for message in messages)]
    assert entries(redis, key) == list(zip(ids, expected, strict=True))


# What the server remembers is gone.


async def test_a_ledger_that_is_lost_with_the_reply(stream, redis, key, lose_ledger):
    """Nobody knows then what came of a message: the error says so, and nothing is written twice."""
    await stream.publish_message(key, {"m": "before"})
    publish = stream.publish_message(key, {"m": "struck"})
    with pytest.raises(StepRedisError, match="does not remember") as caught:
        await lose_ledger(b"struck", publish, lambda: redis.xlen(key) == 2)
    assert caught.value.outcome_unknown
    await stream.publish_message(key, {"m": "after"})
    assert texts(redis, key) == ["before", "struck", "after"]


async def test_a_ledger_that_is_lost_amid_a_batch(stream, redis, key, lose_ledger):
    """What was written before is told exactly; what may have been is counted."""
    messages = numbered(4 * CHUNK)
    await stream.ping()
    # The second and the third chunk are on their way together.
    publish = stream.publish_messages(key, messages)
    with pytest.raises(PartlyPublishedError) as caught:
        await lose_ledger(b"m700.", publish, lambda: redis.xlen(key) >= 2 * CHUNK)
    assert caught.value.outcome_unknown
    [(stream_name, ids)] = caught.value.written.items()
    assert stream_name == key
    assert entries(redis, key)[: len(ids)] == list(
        zip(ids, [message["m"] for message in messages[:CHUNK]], strict=True)
    )
    written = texts(redis, key)
    assert written == [message["m"] for message in messages[: len(written)]]
    assert len(ids) <= len(written) <= len(ids) + caught.value.unknown[key]


@pytest.mark.parametrize("what", ["delayed", "cancelled", "key"])
async def test_a_ledger_that_is_lost_with_another_reply(stream, redis, key, lose_ledger, what):
    """Delaying and cancelling take effect once at most, too; a user's key needs no ledger."""
    handle = await stream.publish_message(key, {"m": "struck"}, delay_seconds=60)
    delayed = f"{{{key}}}.delayed"
    publish = {"stream_name": key, "message": {"m": "other"}}
    call, took_effect = {
        "delayed": (
            lambda: stream.publish_message(**publish, delay_seconds=60),
            lambda: redis.zcard(delayed) == 2,
        ),
        "cancelled": (lambda: stream.cancel_delayed(handle), lambda: not redis.exists(delayed)),
        "key": (lambda: stream.publish_message(**publish, dedup_id="d"), lambda: redis.xlen(key)),
    }[what]
    with pytest.raises(StepRedisError) as caught:
        await lose_ledger(key.encode(), call(), took_effect)
    assert caught.value.outcome_unknown
    assert took_effect()
    if what == "key":
        [(first, _)] = entries(redis, key)
        assert await call() == first
        assert redis.xlen(key) == 1


async def test_a_ledger_that_is_gone_before_anything_is_sent(stream, redis, key):
    """What never was sent is written, as if nothing had happened."""
    handle = await stream.publish_message(key, {"m": "later"}, delay_seconds=60)
    calls = [
        lambda: stream.publish_message(key, {"m": "alone"}),
        lambda: stream.publish_messages(key, numbered(3 * CHUNK)),
        lambda: stream.publish_message(key, {"m": "key"}, dedup_id="d"),
        lambda: stream.cancel_delayed(handle),
        lambda: stream.publish_message(key, {"m": "last"}),
    ]
    results = []
    for call in calls:
        assert redis.delete(*ledgers(redis, key))
        results.append(await call())
    alone, several, under_key, cancelled, last = results
    expected = ["alone", *(message["m"] for message in numbered(3 * CHUNK)), "key", "last"]
    ids = [alone, *several, under_key, last]
    assert entries(redis, key) == list(zip(ids, expected, strict=True))
    assert cancelled


async def test_a_ledger_that_goes_amid_a_batch(stream, redis, key):
    """A batch goes on, too, if no reply is lost meanwhile."""
    gone = []

    def messages():
        for number, message in enumerate(numbered(6 * CHUNK)):
            if number % 700 == 699:
                gone.extend(redis.delete(ledger) for ledger in ledgers(redis, key))
            yield message

    ids = await stream.publish_messages(key, messages())
    assert gone
    expected = [message["m"] for message in numbered(6 * CHUNK)]
    assert entries(redis, key) == list(zip(ids, expected, strict=True))


async def test_all_data_is_flushed_between_publishes(flavour, private_server, key):
    """An empty server is published to as if it were new."""
    server = private_server()
    params = flavour.api.StepRedisPoolParams(host=server.host, port=server.port)
    with server.client() as client:
        async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
            for _ in range(3):
                handle = await stream.publish_message(key, {"m": "later"}, delay_seconds=60)
                client.flushall()
                assert not await stream.cancel_delayed(handle)
                ids = [await stream.publish_message(key, {"m": "a"})]
                client.flushall()
                ids = await stream.publish_messages(key, [{"m": "b"}, {"m": "c"}])
                ids.append(await stream.publish_message(key, {"m": "d"}, dedup_id="d"))
                assert entries(client, key) == list(zip(ids, "bcd", strict=True))


async def test_scripts_are_flushed_before_each_call(stream, redis, key):
    """The server gets the scripts again, whatever is called."""
    redis.script_flush()
    first = await stream.publish_message(key, {"m": "a"})
    redis.script_flush()
    several = await stream.publish_messages(key, numbered(3 * CHUNK))
    redis.script_flush()
    handle = await stream.publish_message(key, {"m": "b"}, delay_seconds=0)
    redis.script_flush()
    assert await stream.publish_due(key) == 1
    redis.script_flush()
    assert not await stream.cancel_delayed(handle)
    [*ids, last] = entries(redis, key)
    expected = ["a", *(message["m"] for message in numbered(3 * CHUNK))]
    assert ids == list(zip([first, *several], expected, strict=True))
    assert last[1] == "b"


# Batches that end early.


@pytest.mark.parametrize("flaw", ["cannot be encoded", "raises"])
async def test_messages_that_fail_amid_a_batch(stream, redis, key, flaw):
    """What was sent before is written, and told; what made it fail is the cause."""

    def messages():
        yield from numbered(1700)
        if flaw == "raises":
            raise LookupError("no more")
        yield {"m": object()}
        yield {"m": "never"}

    with pytest.raises(PartlyPublishedError) as caught:
        await stream.publish_messages(key, messages())
    assert type(caught.value.__cause__) is (LookupError if flaw == "raises" else EncodeError)
    assert not caught.value.outcome_unknown
    assert not any(caught.value.unknown.values())
    expected = [message["m"] for message in numbered(1500)]
    assert entries(redis, key) == list(zip(caught.value.written[key], expected, strict=True))
    await stream.publish_message(key, {"m": "after"})
    assert texts(redis, key)[1500:] == ["after"]


async def test_messages_that_fail_before_anything_is_sent(stream, redis, key):
    """What the messages raised is raised as it is."""

    def messages():
        yield from numbered(300)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        await stream.publish_messages(key, messages())
    assert not redis.exists(key)


async def test_messages_that_fail_while_replies_are_lost(stream, proxy, redis, key):
    """What is on its way when messages fail is found out about first."""

    def messages():
        yield from numbered(1700)
        raise LookupError("no more")

    proxy.drop_replies(b"m700.")
    proxy.drop_replies(b"m1200.")
    with pytest.raises(PartlyPublishedError) as caught:
        await stream.publish_messages(key, messages())
    assert isinstance(caught.value.__cause__, LookupError)
    expected = [message["m"] for message in numbered(1500)]
    assert entries(redis, key) == list(zip(caught.value.written[key], expected, strict=True))


async def test_a_batch_that_is_given_up(flavour, behind, proxy, redis, key):
    """What was written, what may have been and what was not are told apart, in this order."""
    load_scripts(redis)
    proxy.drop_replies(b"m1200.", times=None)
    async with flavour.stream(behind, retry_seconds=0.3) as stream:
        with pytest.raises(PartlyPublishedError) as caught:
            await stream.publish_messages(key, numbered(8 * CHUNK))
    ids, unknown = caught.value.written[key], caught.value.unknown[key]
    assert caught.value.outcome_unknown
    assert (len(ids), unknown) == (2 * CHUNK, 2 * CHUNK)
    written = entries(redis, key)
    assert [text for _, text in written] == [f"m{number}." for number in range(len(written))]
    assert [entry_id for entry_id, _ in written[: len(ids)]] == ids
    assert len(ids) < len(written) <= len(ids) + unknown


async def test_a_batch_that_is_given_up_where_a_script_was_missing(
    flavour, behind, proxy, redis, key, until
):
    """The ids that are told are those of the first messages, also if later ones were written."""
    redis.script_flush()
    async with flavour.stream(behind, retry_seconds=0.3) as stream:
        # The second chunk arrives when the first was written, whose replies are lost for good.
        proxy.hold_requests(b"m700.", times=1)
        proxy.drop_replies(b"m200.", after=2, times=None)
        publishing = asyncio.ensure_future(stream.publish_messages(key, numbered(2 * CHUNK)))
        await until(lambda: redis.xlen(key) == CHUNK)
        proxy.release_requests()
        with pytest.raises(PartlyPublishedError) as caught:
            await publishing
    ids = caught.value.written.get(key, [])
    assert entries(redis, key)[: len(ids)] == [
        (entry_id, f"m{number}.") for number, entry_id in enumerate(ids)
    ]


# Calls that are cancelled.

CALLS = {
    "alone": lambda stream, key, text: stream.publish_message(key, {"m": text}),
    "batch": lambda stream, key, text: stream.publish_messages(key, [{"m": text}] * (CHUNK + 1)),
    "key": lambda stream, key, text: stream.publish_message(key, {"m": text}, dedup_id=text),
    "delayed": lambda stream, key, text: stream.publish_message(key, {"m": text}, delay_seconds=60),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_a_cancelled_call_does_not_disturb_the_next(flavour, params, redis, key, call):
    """Whenever a call is cancelled, what it began comes once at most, and the next gets its ids."""
    single = attrs.evolve(params, max_connections=1)
    least = most = 0
    async with flavour.pool(single) as pool, flavour.stream(pool) as stream:
        for turns in range(120):
            task = asyncio.ensure_future(call(stream, key, f"cancelled {turns}"))
            for _ in range(turns % 40):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
                least += 1
            most += 1
            message_id = await stream.publish_message(key, {"m": f"after {turns}"})
            [(_, fields)] = redis.xrange(key, message_id, message_id)
            assert fields == {b"m": f"after {turns}".encode()}
        delayed = await stream.delayed(key, 1000)
    found = Counter(texts(redis, key) + [message.data["m"] for message in delayed.messages])
    assert all(found.pop(f"after {turns}") == 1 for turns in range(120))
    whole = {CHUNK + 1, CHUNK} if call is CALLS["batch"] else {1}
    assert set(found.values()) <= whole
    assert least <= len(found) <= most


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_a_cancel_is_heard(flavour, params, key, call):
    """Whatever a call is at when it is cancelled, it ends by that."""
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        await call(stream, key, "first")
        for turns in range(40):
            task = asyncio.ensure_future(call(stream, key, f"cancelled {turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                await asyncio.wait({task})
                assert task.cancelled(), f"went on when it was cancelled after {turns} turns"
            await task if not task.cancelled() else None


# What is left on the server.


async def test_a_lone_publisher_has_one_ledger(stream, proxy, redis, key):
    """Calls one after another use one ledger, also when replies are lost: small, and expiring."""
    for number in range(500):
        if number % 50 == 10:
            proxy.drop_replies(f"n{number}.".encode())
        await stream.publish_message(key, {"m": f"n{number}."})
    await stream.publish_messages(key, numbered(3 * CHUNK))
    assert proxy.struck.total() == 10
    [ledger] = ledgers(redis, key)
    assert redis.hlen(ledger) <= 3
    assert 0 < redis.ttl(ledger) <= 900


async def test_concurrent_publishers_have_a_ledger_each(stream, redis, key):
    """So many ledgers as there are calls at once, and no more with time; each expires."""
    for _ in range(4):
        await asyncio.gather(*(stream.publish_message(key, {"m": "x"}) for _ in range(50)))
    found = ledgers(redis, key)
    assert 1 <= len(found) <= 50
    assert all(0 < redis.ttl(ledger) <= 900 for ledger in found)
    assert redis.xlen(key) == 200
