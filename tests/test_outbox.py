"""Messages that are published at the same time share calls; each caller has its own outcome."""

import asyncio
import importlib
from collections import Counter

import attrs
import pytest

from proxy import Proxy
from step_redis import NotAStreamError, ServerError, StepRedisPoolParams

CALLERS = 40
EACH = 15


@pytest.fixture
async def behind(flavour, params, proxy):
    """A stream object behind the proxy."""
    options = attrs.evolve(params, host=proxy.host, port=proxy.port)
    async with flavour.pool(options) as pool, flavour.stream(pool) as stream:
        yield stream


def written(redis, key):
    return [int(fields[b"n"]) for _, fields in redis.xrange(key)]


async def publish_at_once(stream, key, count):
    """Publish so many messages by as many callers; return what each got, in their order."""
    calls = (stream.publish_message(key, {"n": n}) for n in range(count))
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_they_share_calls(flavour, private_server, key, until):
    """While calls are on their way the others wait, then go together; each gets its own id."""
    server = private_server()
    with server.client() as redis, Proxy(server.host, server.port) as proxy:
        options = StepRedisPoolParams(host=proxy.host, port=proxy.port)
        async with flavour.pool(options) as pool, flavour.stream(pool) as stream:
            await stream.publish_message(key, {"n": -1})
            redis.config_resetstat()
            outbox = getattr(stream, "_blocking", stream)._outboxes.of((key, ()))
            proxy.hold_requests(b"EVALSHA", times=outbox._at_once)
            publishing = asyncio.ensure_future(publish_at_once(stream, key, CALLERS))
            await until(lambda: proxy.held_requests == outbox._at_once)
            on_their_way = sum(slot.messages for slot in outbox._slots.things())
            await until(lambda: len(outbox._queue.waiting) == CALLERS - on_their_way)
            proxy.release_requests()
            ids = await publishing
        calls = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
        entries = {id_.decode(): int(fields[b"n"]) for id_, fields in redis.xrange(key)}
    assert [entries[id_] for id_ in ids] == list(range(CALLERS))
    assert len(entries) == 1 + CALLERS
    # Of what waits half goes at a time, and half of the rest.
    assert calls <= 2 + CALLERS.bit_length()


async def test_each_caller_keeps_its_order(stream, key, redis):
    """What one caller publishes stands in its order, whatever the others do."""

    async def caller(name):
        for n in range(EACH):
            await stream.publish_message(key, {"caller": str(name), "n": n})

    await asyncio.gather(*map(caller, range(CALLERS)))
    found = {}
    for _, fields in redis.xrange(key):
        found.setdefault(fields[b"caller"], []).append(int(fields[b"n"]))
    assert found == {b"%d" % name: list(range(EACH)) for name in range(CALLERS)}


async def test_streams_and_options_are_kept_apart(stream, key, redis):
    """Messages of other streams, or with another limit, go by calls of their own."""
    calls = [
        stream.publish_message(f"{key}{n % 2}", {"n": n}, max_len, exact_trim=True)
        for n, max_len in enumerate([None, None, 1000, 1000, None, 500] * 10)
    ]
    await asyncio.gather(*calls)
    assert sorted(written(redis, f"{key}0") + written(redis, f"{key}1")) == list(range(60))


@pytest.mark.parametrize("fault", ["drop_replies", "drop_requests"])
async def test_a_shared_call_is_lost(behind, key, redis, proxy, fault):
    """The reply to a call that several share is lost, or the call: each is written once."""
    await behind.publish_message(key, {"n": 0})
    redis.delete(key)
    getattr(proxy, fault)(b"EVALSHA", after=2, times=3)
    ids = await publish_at_once(behind, key, CALLERS)
    assert sorted(written(redis, key)) == list(range(CALLERS))
    entries = {id_.decode(): int(fields[b"n"]) for id_, fields in redis.xrange(key)}
    assert [entries[id_] for id_ in ids] == list(range(CALLERS))
    assert proxy.armed == 0


async def test_a_call_that_hangs_holds_up_its_own_messages_only(behind, key, redis, proxy, until):
    """While one is not answered, others publish; so they do while it is tried again."""
    await behind.publish_message(key, {"n": 0})
    proxy.hold_replies(b"EVALSHA", times=1)
    first = asyncio.ensure_future(behind.publish_message(key, {"n": 1}))
    await until(lambda: proxy.held_replies)
    await publish_at_once(behind, key, CALLERS)
    assert proxy.held_replies
    assert not first.done()
    proxy.cut()
    assert isinstance(await behind.publish_message(key, {"n": 99}), str)
    await first
    expected = Counter(range(CALLERS)) + Counter((0, 1, 99))
    assert Counter(written(redis, key)) == expected


async def test_each_caller_has_its_own_error(stream, key, redis):
    """The key holds something else: each caller is told, by an error that is its own."""
    redis.set(key, "text")
    errors = await publish_at_once(stream, key, CALLERS)
    assert {type(error) for error in errors} == {NotAStreamError}
    assert len(set(map(id, errors))) == CALLERS
    assert {error.stream for error in errors} == {key}
    assert not any(error.outcome_unknown for error in errors)


async def test_an_error_that_cannot_be_copied(flavour, stream, key, redis, monkeypatch):
    """A credential provider's own, say: each caller is told, and the next ones publish."""

    class TokenError(Exception):
        def __init__(self, code, text):
            super().__init__(f"{code}: {text}")

    def fail(*_):
        raise TokenError(500, "away")

    outbox = importlib.import_module(
        f"{flavour.api.StepRedisStream.__module__.rpartition('.')[0]}.outbox"
    )
    monkeypatch.setattr(outbox, "batch", fail)
    errors = await publish_at_once(stream, key, CALLERS)
    assert {type(error) for error in errors} == {TokenError}
    monkeypatch.undo()
    await publish_at_once(stream, key, CALLERS)
    assert sorted(written(redis, key)) == list(range(CALLERS))


async def test_a_refused_message_does_not_concern_those_before_it(stream, key, redis):
    """The server has ids for some of the messages only: those are written, the others refused."""
    redis.xadd(key, {"n": -1}, id=f"{2**64 - 1}-{2**64 - 6}")
    outcomes = await publish_at_once(stream, key, CALLERS)
    ids = [outcome for outcome in outcomes if isinstance(outcome, str)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, ServerError)]
    assert (len(ids), len(refused)) == (5, CALLERS - 5)
    assert sorted(ids) == [id_.decode() for id_, _ in redis.xrange(key)][1:]
    assert not any(error.outcome_unknown for error in refused)


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
@pytest.mark.parametrize("cancelled", [0, 1, 2, 3, CALLERS - 1])
async def test_a_caller_is_cancelled(behind, key, redis, proxy, until, cancelled):
    """Whoever it is, also one who sends for others: the others are written, each once."""
    await behind.publish_message(key, {"n": -1})
    proxy.hold_requests(b"EVALSHA", times=2)
    calls = [asyncio.ensure_future(behind.publish_message(key, {"n": n})) for n in range(CALLERS)]
    await until(lambda: proxy.held_requests == 2)
    calls[cancelled].cancel()
    await asyncio.sleep(0)
    proxy.release_requests()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcomes.pop(cancelled), asyncio.CancelledError)
    assert all(isinstance(outcome, str) for outcome in outcomes)
    found = Counter(written(redis, key))
    others = {n: 1 for n in range(-1, CALLERS) if n != cancelled}
    assert found - Counter([cancelled]) == others
    # One that was not sent yet never is.
    assert found[cancelled] == 0 or cancelled < CALLERS - 1


@pytest.mark.parametrize("flavour", ["asyncio"], indirect=True)
async def test_callers_are_cancelled_again_and_again(stream, key, redis):
    """Nobody is left waiting, nothing that was confirmed is missing or there twice."""
    confirmed = []

    async def caller(name):
        for n in range(EACH):
            number = name * EACH + n
            await stream.publish_message(key, {"n": number})
            confirmed.append(number)

    for start in range(0, 20, 2):
        tasks = [asyncio.ensure_future(caller(start + at)) for at in range(2)]
        tasks += [asyncio.ensure_future(caller(1000 + start * 20 + at)) for at in range(20)]
        for turn in range(start % 7 + 1):
            await asyncio.sleep(0.001 * (turn % 3))
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    found = Counter(written(redis, key))
    assert set(found.values()) == {1}
    assert set(confirmed) <= set(found)


async def test_large_messages_go_in_calls_of_a_megabyte(stream, key, redis):
    """However many wait, a call stays of a bounded size."""
    calls = (stream.publish_message(key, {"n": n, "x": "x" * 300_000}) for n in range(CALLERS))
    await asyncio.gather(*calls)
    assert sorted(written(redis, key)) == list(range(CALLERS))


async def test_what_nobody_expected(flavour, stream, key, redis, monkeypatch):
    """An error of nobody's after the reply came: no later message is told another's id."""
    await stream.publish_message(key, {"n": -1})
    real, left = flavour.backend.exchange, [3]

    def strike(result):
        left[0] -= 1
        if left[0] >= 0:
            raise RuntimeError("planted")
        return result

    if flavour.name == "asyncio":

        async def exchange(*args):
            return strike(await real(*args))
    else:

        def exchange(*args):
            return strike(real(*args))

    monkeypatch.setattr(flavour.backend, "exchange", exchange)
    outcomes = await publish_at_once(stream, key, CALLERS)
    monkeypatch.undo()
    outcomes += await asyncio.gather(
        *(stream.publish_message(key, {"n": CALLERS + n}) for n in range(CALLERS))
    )
    entries = {id_.decode(): int(fields[b"n"]) for id_, fields in redis.xrange(key)}
    told = {n: outcome for n, outcome in enumerate(outcomes) if isinstance(outcome, str)}
    assert {entries[id_]: id_ for id_ in told.values()} == told
    assert len(told) < 2 * CALLERS
    assert len(set(entries.values())) == len(entries)


async def test_ids_that_are_not_those_of_the_messages(flavour, stream, key, redis, monkeypatch):
    """Whatever made the server answer so: nobody is told the id of another's message."""
    outbox = importlib.import_module(
        f"{flavour.api.StepRedisStream.__module__.rpartition('.')[0]}.outbox"
    )
    real = outbox.read_ids

    def short(result):
        ids, refusal = real(result)
        return ids[1:] or ids, refusal

    monkeypatch.setattr(outbox, "read_ids", short)
    outcomes = await publish_at_once(stream, key, CALLERS)
    monkeypatch.undo()
    entries = {id_.decode(): int(fields[b"n"]) for id_, fields in redis.xrange(key)}
    told = {n: outcome for n, outcome in enumerate(outcomes) if isinstance(outcome, str)}
    assert {entries[id_]: id_ for id_ in told.values()} == told
    others = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert others
    assert all(error.outcome_unknown for error in others)
