"""Many messages in one call: what is returned, and what is told when something is wrong."""

import logging

import pytest

from step_redis import (
    ConfigurationError,
    DuplicateConflict,
    EncodeError,
    PartlyPublishedError,
)
from step_redis.publishing import CHUNK_BYTES


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1700])
async def test_ids_in_order(stream, key, redis, count):
    """The ids are those of the entries, in the order of the messages."""
    ids = await stream.publish_messages(key, ({"n": str(n)} for n in range(count)))
    entries = redis.xrange(key)
    assert ids == [entry_id.decode() for entry_id, _ in entries]
    assert [fields[b"n"] for _, fields in entries] == [b"%d" % n for n in range(count)]


async def test_large_messages(stream, key, redis):
    """A call to the server takes about a megabyte, and one message at least, however large."""
    await stream.publish_message(key, {})  # brings the script
    redis.config_resetstat()
    ids = await stream.publish_messages(key, [{"n": "x" * CHUNK_BYTES}] * 3 + [{"n": "x"}] * 3)
    assert redis.xlen(key) - 1 == len(ids) == 6
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 4


async def test_several_streams(stream, key, redis):
    """Each stream gets its messages; one without any is not made."""
    streams = {f"{key}:{n}": [{"n": str(n)}] * n for n in range(4)}
    written = await stream.publish_many(streams, 100, headers={"by": "me"})
    assert list(written) == list(streams)
    assert [len(ids) for ids in written.values()] == [0, 1, 2, 3]
    assert not redis.exists(f"{key}:0")
    for name, ids in written.items():
        entries = redis.xrange(name)
        assert ids == [entry_id.decode() for entry_id, _ in entries]
        assert all(fields[b"_step:h:by"] == b"me" for _, fields in entries)


async def test_max_len(stream, key, redis):
    """Trimming is Redis's own, and approximate."""
    await stream.publish_messages(key, [{"n": "1"}] * 5000, 1000)
    assert 1000 <= redis.xlen(key) < 1200


async def test_a_bad_message_is_told_by_its_number(stream, key, redis):
    """The error says which message of which stream it was; nothing was written before the first."""
    messages = [{"n": 1}, {"n": {1, 2}}]
    with pytest.raises(EncodeError, match=f"message 1 of '{key}', counted from 0: key 'n'"):
        await stream.publish_messages(key, messages)
    assert not redis.exists(key)


async def test_a_bad_message_amid_many(stream, key, redis):
    """What was written is told for every stream of the call, and nothing that may have been."""
    first, second = f"{key}:1", f"{key}:2"
    messages = {first: [{"n": 1}] * 1200 + [{"n": object()}], second: [{"n": 1}]}
    with pytest.raises(PartlyPublishedError, match="1000 messages were written before") as caught:
        await stream.publish_many(messages)
    error = caught.value
    written = [entry_id.decode() for entry_id, _ in redis.xrange(first)]
    assert error.written == {first: written, second: []}
    assert error.unknown == {first: 0, second: 0}
    assert not error.outcome_unknown
    assert isinstance(error.__cause__, EncodeError)
    assert "message 1200" in str(error)
    assert len(written) == 1000


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ({"n": 1}, "one dict: use publish_message"),
        ("hello", "iterable of dicts.*got 'hello'"),
        (b"hello", "iterable of dicts"),
        (None, "iterable of dicts.*got None"),
        (5, "iterable of dicts.*got 5"),
        (print, "iterable of dicts.*builtin_function"),
    ],
)
async def test_what_are_no_messages(stream, key, messages, text):
    """One message, or none at all, where several are expected."""
    with pytest.raises(ConfigurationError, match=text):
        await stream.publish_messages(key, messages)
    with pytest.raises(ConfigurationError, match=text):
        await stream.publish_many({key: messages})


@pytest.mark.parametrize("messages", [[{"n": 1}], {1: []}, {"": []}, None])
async def test_what_are_no_streams(stream, messages):
    """Several streams are a dict of their names."""
    with pytest.raises(ConfigurationError):
        await stream.publish_many(messages)


async def test_names_without_a_place_for_a_ledger(stream, key, redis, caplog):
    """Braces that are no hash tag leave only plain XADD, in batches too; the log says so, once."""
    name = f"{key}:a}}b{{"
    first = await stream.publish_message(name, {"n": "1"})
    ids = await stream.publish_many({key: [{"n": "1"}], name: [{"n": "2"}] * 3})
    assert [first, *ids[name]] == [entry_id.decode() for entry_id, _ in redis.xrange(name)]
    assert len([row for row in caplog.records if "plain XADD" in row.getMessage()]) == 1
    with pytest.raises(ConfigurationError, match="braces"):
        await stream.publish_message(name, {"n": "1"}, dedup_id="k")


async def test_conflicts_are_no_errors_of_the_log(stream, key, caplog):
    """Anybody may publish under a key that was used before: that is for the caller to judge."""
    await stream.publish_message(key, {"n": 1}, dedup_id="k")
    with caplog.at_level(logging.INFO), pytest.raises(DuplicateConflict):
        await stream.publish_message(key, {"n": 2}, dedup_id="k")
    assert [row.levelname for row in caplog.records] == ["INFO"]


async def test_a_key_outlives_the_delay(stream, key, redis):
    """The key of a delayed message is kept for its time after the message is due."""
    await stream.publish_message(key, {"n": 1}, dedup_id="k", dedup_seconds=60, delay_seconds=1000)
    assert 1050 < redis.ttl(f"{{{key}}}.dedup:k") <= 1060


async def test_a_message_under_a_key_is_converted_once(flavour, pool, key):
    """What is compared is what was stored: `default` is not asked again, nor do headers count."""
    asked = []

    def number_of_calls(value):
        asked.append(value)
        return len(asked)

    async with flavour.stream(pool, default=number_of_calls) as stream:
        first = await stream.publish_message(key, {"n": {1}}, dedup_id="k", headers={"try": "1"})
        assert len(asked) == 1
        again = await stream.publish_message(key, {"n": 1}, dedup_id="k", headers={"try": "2"})
    assert again == first
