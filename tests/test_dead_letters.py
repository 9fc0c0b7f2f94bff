"""Dead letters: nothing of the message changes, where it came from is said, it can come again."""

import asyncio
import logging
import re
import time

import pytest

from consuming import (
    PARKED,
    Recorder,
    counted,
    dead_letters,
    holders,
    is_settled,
    pending,
    running,
)
from step_redis import ConfigurationError, EncodeError, NotAStreamError, RetryPolicy

ONCE = RetryPolicy(max_deliveries=1)
PREFIX = b"_step:h:_step:dead:"


@pytest.fixture
def bury(flavour, pool, key, redis, until):
    """Let all that is in the stream become dead letters of the group."""

    async def bury(group="g", name=key, **options):
        consumer = flavour.consumer(pool, name, group, retry=ONCE, **options)
        async with running(consumer, fail):
            await until(is_settled(redis, name, group))

    return bury


async def fail(message):
    raise ValueError(f"cannot do {message.id}")


async def test_fields_are_untouched(stream, key, redis, bury):
    """Message and headers are there as they were, bytes and all, in the same order."""
    await stream.publish_message(key, {"raw": b"\xff", "n": 1, "text": "Zoë"}, headers={"h": "ü"})
    redis.xadd(key, {b"\xfe": b"\xff", b"": b"", b"plain": b"1"})
    redis.xadd(key, {"n": "x", "_step:t": '{"n":"j"}'})
    await bury()
    before = [list(fields.items()) for _, fields in redis.xrange(key)]
    after = [
        [(name, value) for name, value in fields.items() if not name.startswith(PREFIX)]
        for _, fields in redis.xrange(f"{{{key}}}.dead")
    ]
    assert after == before


async def test_provenance(flavour, pool, stream, key, redis, publish, until):
    """It says from where, to whom and how often, why, and when first and last in ms."""
    [message_id] = await publish()
    handled = Recorder(fail)
    retry = RetryPolicy(max_deliveries=2, delays=0.5)
    before = int(time.time() * 1000)
    async with running(flavour.consumer(pool, key, retry=retry, name="me"), handled.handle):
        await until(is_settled(redis, key))
    [(_, about)] = dead_letters(redis, key)
    first, last = int(about.pop("first-delivered")), int(about.pop("last-delivered"))
    assert about == {
        "stream": key,
        "id": message_id,
        "group": "g",
        "consumer": "me",
        "deliveries": "2",
        "error-type": "ValueError",
        "error": f"cannot do {message_id}",
    }
    assert before - 100 < first < last < time.time() * 1000 + 100
    assert last - first > 490
    await stream.create_input_stream(f"{{{key}}}.dead", "ops")
    [letter] = await stream.receive_message(f"{{{key}}}.dead", "ops", "me")
    assert letter["data"] == {"n": 0}
    assert letter["headers"]["_step:dead:error-type"] == "ValueError"


async def test_long_and_strange_errors(flavour, pool, key, redis, publish, until):
    """A text of any length and of any characters is kept as far as it makes sense."""
    texts = ["x" * 100_000, "\udcff half", "line\nline", ""]
    await publish(len(texts))

    async def say(message):
        raise ValueError(texts[message.data["n"]])

    # pytest-xdist stumbles over such a text in what was logged.
    quiet = logging.Logger("quiet")  # noqa: LOG001 - one that nobody else has
    async with running(flavour.consumer(pool, key, retry=ONCE, logger=quiet), say):
        await until(is_settled(redis, key))
    errors = [about["error"] for _, about in dead_letters(redis, key)]
    assert errors[0] == texts[0][: len(errors[0])]
    assert 1000 <= len(errors[0]) < 10_000
    assert errors[1:] == ["\\udcff half", "line\nline", ""]


async def test_reserved_headers(stream, key):
    """Nobody can publish what looks like the provenance of a dead letter."""
    with pytest.raises(EncodeError, match="_step:"):
        await stream.publish_message(key, {"n": 1}, headers={"_step:dead:stream": "x"})


async def test_another_dead_letter_stream(flavour, pool, key, redis, publish, bury):
    """Dead letters go where the options say, and the default one is not made."""
    await publish()
    other = f"{{{key}}}.graveyard"
    await bury(dead_letter_stream=other)
    assert redis.xlen(other) == 1
    assert not redis.exists(f"{{{key}}}.dead")


@pytest.mark.parametrize(
    ("stream", "dead", "message"),
    [
        ("orders", "orders.dead", "does not lie in the Cluster slot"),
        ("{a}x", "{b}x", "does not lie in the Cluster slot"),
        ("orders", "orders", "another stream"),
    ],
)
async def test_dead_letter_streams_that_cannot_work(flavour, pool, stream, dead, message):
    """They are refused when the consumer is made, not when a message is lost."""
    with pytest.raises(ConfigurationError, match=message):
        flavour.consumer(pool, stream, dead_letter_stream=dead)


async def test_a_dead_letter_stream_that_is_none(flavour, pool, key, redis, publish, until, caplog):
    """If the dead letter cannot be written, the message is kept and retried, and that is logged."""
    await publish()
    redis.set(f"{{{key}}}.dead", "text")
    handled = Recorder(fail)
    retry = RetryPolicy(max_deliveries=1, delays=0.2)
    consumer = flavour.consumer(pool, key, retry=retry)
    async with running(consumer, handled.handle):
        await until(lambda: len(handled.ids) >= 3)
        assert pending(redis, key) == 1
        assert (await consumer.health()).counters.dead_lettered == 0
        redis.delete(f"{{{key}}}.dead")
        await until(is_settled(redis, key))
    assert len(dead_letters(redis, key)) == 1
    assert "NotAStreamError" in caplog.text
    assert "went to the dead-letter stream" not in [
        record.getMessage() for record in caplog.records[:2]
    ]


async def test_an_undecodable_entry_that_cannot_be_buried(
    flavour, pool, stream, key, redis, until, caplog
):
    """So is an entry that cannot be decoded."""
    await stream.create_input_stream(key, "g")
    redis.xadd(key, {"n": "x", "_step:t": '{"n":"j"}'})
    redis.set(f"{{{key}}}.dead", "text")
    consumer = flavour.consumer(pool, key, retry=RetryPolicy(delays=0.2))
    async with running(consumer, fail):
        await until(lambda: counted(consumer, retried=2))
        assert pending(redis, key) == 1
        redis.delete(f"{{{key}}}.dead")
        await until(is_settled(redis, key))
    assert len(dead_letters(redis, key)) == 1


async def test_an_entry_of_too_many_fields(flavour, pool, stream, key, redis, until, caplog):
    """What no script can write elsewhere is kept and retried, and does no harm to the others."""
    await stream.create_input_stream(key, "g")
    await stream.publish_message(key, {f"f{n}": "x" for n in range(5000)})
    await stream.publish_message(key, {"n": 1})
    consumer = flavour.consumer(pool, key, retry=RetryPolicy(max_deliveries=1, delays=0.1))
    async with running(consumer, fail):
        await until(lambda: counted(consumer, retried=2, dead_lettered=1))
        assert pending(redis, key) == 1
    assert re.search(r"an entry of 5\d\d\d fields cannot be moved", caplog.text)


async def test_a_dead_letter_and_the_acknowledgement_are_one(
    flavour, pool, key, redis, publish, until
):
    """At no moment is a message neither pending nor a dead letter, or both."""
    await publish(200)
    seen = set()
    async with running(flavour.consumer(pool, key, retry=ONCE, concurrency=3), fail):
        while True:
            with redis.pipeline() as pipe:
                pipe.xpending(key, "g")
                pipe.xlen(f"{{{key}}}.dead")
                pipe.xinfo_groups(key)
                left, dead, [group] = pipe.execute()
            read = group.get("entries-read")
            if read is not None:
                assert left["pending"] + dead == read
            seen.add(dead)
            if dead == 200:
                break
            await asyncio.sleep(0.001)
    assert len(seen) > 2


# --- Redriving ------------------------------------------------------------------------------


async def test_redrive(flavour, pool, stream, key, redis, publish, bury, until):
    """All dead letters come again, as they were published, and leave when they are settled."""
    ids = await publish(5)
    await bury()
    letters = [letter for letter, _ in dead_letters(redis, key)]
    assert await stream.redrive(key, "g") == letters
    assert len(dead_letters(redis, key)) == 5
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(lambda: not dead_letters(redis, key))
    assert sorted(handled.ids) == sorted(ids)
    assert handled.counts == [1] * 5
    message = handled.messages[0]
    assert (message.stream, message.group) == (key, "g")
    assert message.data in [{"n": n} for n in range(5)]
    assert redis.xlen(key) == 5


async def test_redrive_to_a_running_consumer(flavour, pool, stream, key, redis, publish, until):
    """A consumer that is running gets them soon, also if there was no dead-letter stream before."""
    await publish()

    async def fail_first(message):
        if len(handled.ids) == 1:
            raise ValueError("made up")

    handled = Recorder(fail_first)
    async with running(flavour.consumer(pool, key, retry=ONCE), handled.handle):
        await until(lambda: dead_letters(redis, key))
        await stream.redrive(key, "g")
        await until(lambda: not dead_letters(redis, key), timeout=3)
    assert handled.counts == [1, 1]


async def test_only_its_group_sees_it(flavour, pool, stream, key, redis, publish, bury, until):
    """Dead letters of two groups in one stream go back to the group that they came from."""
    ids = await publish(2)
    await bury("g")
    await bury("other")
    assert len(await stream.redrive(key, "other")) == 2
    mine, theirs = Recorder(), Recorder()
    async with (
        running(flavour.consumer(pool, key), mine.handle),
        running(flavour.consumer(pool, key, "other"), theirs.handle),
    ):
        await until(lambda: len(dead_letters(redis, key)) == 2)
    assert (mine.ids, sorted(theirs.ids)) == ([], ids)
    assert {about["group"] for _, about in dead_letters(redis, key)} == {"g"}


async def test_redriven_twice_delivered_once(
    flavour, pool, stream, key, redis, publish, bury, until
):
    """What is on its way already is left alone."""
    await publish(3)
    await bury()
    first = await stream.redrive(key, "g", limit=2)
    assert await stream.redrive(key, "g") == [dead_letters(redis, key)[2][0]]
    assert await stream.redrive(key, "g") == []
    assert await stream.redrive(key, "g", ids=first) == []
    assert await stream.redrive(key, "g", dry_run=True) == []
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(lambda: not dead_letters(redis, key))
    assert handled.counts == [1] * 3


async def test_dry_run_and_choice(flavour, pool, stream, key, redis, publish, bury, until):
    """dry_run only tells; ids and limit choose."""
    ids = await publish(6)
    await bury()
    letters = [letter for letter, _ in dead_letters(redis, key)]
    before = redis.dump(f"{{{key}}}.dead")
    assert await stream.redrive(key, "g", dry_run=True) == letters
    assert await stream.redrive(key, "g", dry_run=True, limit=2) == letters[:2]
    assert await stream.redrive(key, "g", dry_run=True, ids=letters[3:5]) == letters[3:5]
    assert redis.dump(f"{{{key}}}.dead") == before
    assert await stream.redrive(key, "g", ids=[letters[4], letters[2]], limit=1) == [letters[2]]
    assert await stream.redrive(key, "g", ids=[letters[4]]) == [letters[4]]
    assert await stream.redrive(key, "g", limit=1) == [letters[0]]
    handled = Recorder()
    async with running(flavour.consumer(pool, key), handled.handle):
        await until(lambda: len(dead_letters(redis, key)) == 3)
    assert sorted(handled.ids) == [ids[0], ids[2], ids[4]]


async def test_ids_that_are_no_dead_letters(stream, key, redis, publish, bury):
    """One error names them all, and nothing is redriven."""
    await publish(2)
    await bury()
    foreign = redis.xadd(f"{{{key}}}.dead", {"n": "1"}).decode()
    [letter, _] = [letter for letter, about in dead_letters(redis, key) if about]
    with pytest.raises(ConfigurationError, match=f"1-1, {foreign}") as caught:
        await stream.redrive(key, "g", ids=[letter, "1-1", foreign])
    assert letter not in str(caught.value)
    with pytest.raises(ConfigurationError):
        await stream.redrive(key, "other", ids=[letter])
    assert redis.xinfo_groups(f"{{{key}}}.dead") == []


async def test_nothing_to_redrive(stream, key, redis):
    """Without dead letters, or without their stream, there is nothing to do."""
    assert await stream.redrive(key, "g") == []
    assert await stream.redrive(key, "g", dry_run=True) == []
    assert await stream.redrive(key, "g", ids=[]) == []
    redis.set(f"{{{key}}}.dead", "text")
    with pytest.raises(NotAStreamError):
        await stream.redrive(key, "g")


@pytest.mark.parametrize(
    "arguments",
    [{"limit": 0}, {"limit": True}, {"ids": "nonsense"}, {"ids": 5}, {"dead_letter_stream": 5}],
)
async def test_arguments_that_cannot_work(stream, key, arguments):
    """They are refused with one clear error."""
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        await stream.redrive(key, "g", **arguments)


async def test_failing_again(flavour, pool, stream, key, redis, publish, bury, until):
    """It returns to the dead letters with its origin kept and what is new, and can come again."""
    [message_id] = await publish()
    await bury()
    [(before, about_before)] = dead_letters(redis, key)
    await stream.redrive(key, "g")

    async def fail_anew(message):
        raise LookupError("another reason")

    handled = Recorder(fail_anew)
    retry = RetryPolicy(max_deliveries=2, delays=0)
    async with running(flavour.consumer(pool, key, retry=retry), handled.handle):
        await until(lambda: [letter for letter, _ in dead_letters(redis, key)] != [before])
    assert handled.counts == [1, 2]
    [(_, about)] = dead_letters(redis, key)
    assert [about[name] for name in ("stream", "id", "group")] == [key, message_id, "g"]
    assert (about["error-type"], about["deliveries"]) == ("LookupError", "2")
    assert about.keys() == about_before.keys()
    assert len(await stream.redrive(key, "g")) == 1
    again = Recorder()
    async with running(flavour.consumer(pool, key), again.handle):
        await until(lambda: not dead_letters(redis, key))
    assert again.ids == [message_id]


async def test_redriven_from_another_stream(
    flavour, pool, stream, key, redis, publish, bury, until
):
    """Dead letters of a stream that the options name are found if redrive is told of it."""
    await publish()
    other = f"{{{key}}}.graveyard"
    await bury(dead_letter_stream=other)
    assert await stream.redrive(key, "g") == []
    assert len(await stream.redrive(key, "g", dead_letter_stream=other)) == 1
    handled = Recorder()
    async with running(flavour.consumer(pool, key, dead_letter_stream=other), handled.handle):
        await until(lambda: redis.xlen(other) == 0)
    assert handled.counts == [1]


async def test_two_streams_share_their_dead_letters(flavour, pool, stream, key, redis, bury, until):
    """In a dead-letter stream of several streams, each gets its own back."""
    names = [f"{{{key}}}:a", f"{{{key}}}:b"]
    dead = f"{{{key}}}:dead"
    for name in names:
        await stream.publish_message(name, {"from": name})
        await bury(name=name, dead_letter_stream=dead)
    assert len(await stream.redrive(names[0], "g", dead_letter_stream=dead)) == 1
    handled = Recorder()
    async with running(flavour.consumer(pool, names, dead_letter_stream=dead), handled.handle):
        await until(lambda: redis.xlen(dead) == 1)
    assert [message.data for message in handled.messages] == [{"from": names[0]}]


async def test_more_dead_letters_than_one_page(flavour, pool, stream, key, redis, publish, until):
    """However many there are, all come again."""
    await publish(3)
    dead = f"{{{key}}}.dead"
    about = {
        f"_step:h:_step:dead:{name}": value
        for name, value in (("stream", key), ("group", "g"), ("id", "5-5"))
    }
    with redis.pipeline() as pipe:
        for n in range(1700):
            pipe.xadd(dead, {"n": str(n)} | about)
            if n % 3 == 0:
                pipe.xadd(dead, {"foreign": "1"})
        pipe.execute()
    assert len(await stream.redrive(key, "g")) == 1700
    handled = Recorder()
    async with running(flavour.consumer(pool, key, concurrency=10), handled.handle):
        await until(lambda: redis.xlen(dead) == 567, timeout=60)
    numbers = [int(message.data["n"]) for message in handled.messages if message.id == "5-5"]
    assert sorted(numbers) == list(range(1700))


async def test_redriven_ones_wait_while_nobody_is_there(stream, key, redis, publish, bury):
    """They are parked in a group of their own on the dead-letter stream, and nowhere else."""
    await publish(2)
    await bury()
    await stream.redrive(key, "g")
    [group] = redis.xinfo_groups(f"{{{key}}}.dead")
    assert group["pending"] == 2
    assert holders(redis, f"{{{key}}}.dead", group["name"].decode()) == {PARKED: 2}
    assert redis.xlen(key) == 2
