"""What is pending under a consumer's name without its knowing, as after a failover."""

from consuming import Recorder, holders, is_settled, running
from step_redis import lease
from step_redis.lease import STRANDED_SECONDS, Member
from step_redis.messages import Delivery

PUBLISH_AND_READ = """
redis.call('XADD', KEYS[1], '*', 'n', '1')
return redis.call('XREADGROUP', 'GROUP', 'g', ARGV[1], 'STREAMS', KEYS[1], '>')
"""
"""One step, so that no other reader gets the message."""


def joined():
    member = Member("name", 1000)
    member.joined("name~1", 0, 0, [])
    return member


def test_what_is_not_known_for_long_is_stranded():
    """A reply that brings it may be on its way; none takes so long."""
    member = joined()
    assert not member.is_stranded("1-0", 1)
    assert not member.is_stranded("1-0", 1 + STRANDED_SECONDS)
    assert member.is_stranded("1-0", 1.1 + STRANDED_SECONDS)


def test_another_one_has_a_time_of_its_own():
    """What was unknown for a moment and came, or went, does not count."""
    member = joined()
    assert not member.is_stranded("1-0", 1)
    member.read("name~1", [Delivery("1-0", [], 1)], 2)
    assert not member.is_stranded("1-0", 30)
    assert not member.is_stranded("2-0", 31)
    assert not member.is_stranded("", 60)
    assert not member.is_stranded("2-0", 61)


async def test_a_stranded_message_is_handled(flavour, pool, stream, key, redis, until, monkeypatch):
    """The server gives a message to a consumer that never hears of it: it comes all the same."""
    monkeypatch.setattr(lease, "STRANDED_SECONDS", 0.5)
    await stream.create_input_stream(key, "g", start_id="$")
    handled = Recorder()
    consumer = flavour.consumer(pool, key)
    async with running(consumer, handled.handle):
        await until(lambda: len(holders(redis, key)) == 2)
        [name] = [one for one in holders(redis, key) if b"~" in one]
        # As a read would, whose reply is lost without anybody noticing.
        [[_, [[entry_id, _]]]] = redis.eval(PUBLISH_AND_READ, 1, key, name)
        await until(lambda: handled.ids == [entry_id.decode()])
        await until(is_settled(redis, key))
        assert (await consumer.health()).counters.moves >= 1
    assert handled.counts == [1]
