"""Users who may not do all that publishing does: what is refused has changed nothing."""

import re
from collections.abc import Iterator
from importlib.resources import files

import pytest
from redis import Redis

from step_redis import StepRedisError, StepRedisPoolParams
from step_redis.sync import StepRedisPool, StepRedisStream

SCRIPTS = ("ledger", "publish", "publish_once", "cancel", "publish_due", "delayed")
COMMANDS = sorted(
    {
        command.lower()
        for name in SCRIPTS
        for command in re.findall(
            r"""(?:call\('|\{'(?=[A-Z]+', ledger))([A-Z]+)'""",
            files("step_redis.scripts").joinpath(f"{name}.lua").read_text(encoding="utf-8"),
        )
    }
)


@pytest.fixture(scope="module")
def server(source):
    server = source.start()
    yield server
    server.stop()


@pytest.fixture
def admin(server) -> Iterator[Redis]:
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def stream(server) -> Iterator[StepRedisStream]:
    """A stream object that may do everything."""
    params = StepRedisPoolParams(host=server.host, port=server.port)
    with StepRedisPool(params) as pool, StepRedisStream(pool) as stream:
        yield stream


@pytest.fixture(params=COMMANDS)
def few(request, server, admin) -> Iterator[StepRedisStream]:
    """A stream object of a user who may do everything but one command."""
    rules = ("reset", "on", ">pw", "~*", "+@all", f"-{request.param}")
    admin.execute_command("ACL", "SETUSER", "few", *rules)
    params = StepRedisPoolParams(host=server.host, port=server.port, username="few", password="pw")
    with StepRedisPool(params) as pool, StepRedisStream(pool) as stream:
        yield stream


def tried(call, *args, **kwargs):
    """Return what a call returned; None if it was refused."""
    try:
        return call(*args, **kwargs)
    except StepRedisError as error:
        if error.outcome_unknown:
            raise
        return None


def test_the_commands_are_found():
    """The scripts use these, among others."""
    assert {"xadd", "hset", "pexpire", "zadd", "zrem", "set", "del", "time"} <= set(COMMANDS)


def test_publishing(few, admin):
    """A message is written once, or the call is refused; ledgers expire whatever happens."""
    ids = [tried(few.publish_message, "s", {"n": n}) for n in range(3)]
    ids += tried(few.publish_messages, "s", [{"n": n} for n in range(3)]) or []
    written = [entry_id.decode() for entry_id, _ in admin.xrange("s")]
    assert [entry_id for entry_id in ids if entry_id] == written
    assert all(admin.pttl(key) > 0 for key in admin.scan_iter("*ledger*"))


def test_a_key_of_the_users(few, stream, admin):
    """What was refused under a key can be published under it by whoever may."""
    first = tried(few.publish_message, "s", {"n": 1}, dedup_id="k")
    again = stream.publish_message("s", {"n": 1}, dedup_id="k")
    assert first in (None, again)
    assert [entry_id.decode() for entry_id, _ in admin.xrange("s")] == [again]


def test_delaying(few, stream):
    """A message is delayed, or it is not."""
    handle = tried(few.publish_message, "s", {"n": 1}, delay_seconds=100, dedup_id="k")
    assert [message.handle for message in stream.delayed("s").messages] == [handle] * bool(handle)


def test_cancelling(few, stream, admin):
    """A message is cancelled and its key free, or neither."""
    handle = stream.publish_message("s", {"n": 1}, delay_seconds=100, dedup_id="k")
    is_cancelled = tried(few.cancel_delayed, handle)
    assert stream.delayed("s").count == (0 if is_cancelled else 1)
    assert admin.exists("{s}.dedup:k") == (0 if is_cancelled else 1)


def test_publishing_what_is_due(few, stream, admin):
    """A delayed message is in the stream, or still delayed; never both, nor twice."""
    stream.publish_message("s", {"n": 1}, delay_seconds=0)
    counts = [tried(few.publish_due, "s") for _ in range(3)]
    assert admin.xlen("s") == sum(filter(None, counts))
    assert admin.xlen("s") + stream.delayed("s").count == 1
