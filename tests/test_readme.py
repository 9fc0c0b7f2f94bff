"""The README is true: its programs run, its tables are complete, its commands are the real ones."""

import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
import redis as redis_py

import step_redis
from step_redis.sync import (
    ConsumerOptions,
    Retention,
    RetryPolicy,
    StepRedisConsumer,
    StepRedisPool,
    StepRedisPoolParams,
    StepRedisStream,
    Trimmed,
)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def command(name):
    """The command behind a marker such as <!-- test command -->."""
    [found] = re.findall(rf"^<!-- {name} -->\n```sh\n(.*)\n```$", README, re.MULTILINE)
    return found


SERVICE = "signals=True"
OTHERS = [program for program in PROGRAMS if SERVICE not in program]


def start(program, server, key):
    """Run a block of the README as it is written, but for the streams' names."""
    program = program.replace('"orders"', repr(key))
    for name in ("lines", "invoices"):
        program = program.replace(f'"{name}"', repr(f"{key}:{name}"))
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | {"STEP_REDIS_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(program, server, key):
    """Run a block to its end; return what it printed."""
    with start(program, server, key) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@pytest.mark.parametrize("program", OTHERS, ids=lambda program: program.splitlines()[0])
def test_programs_run(program, server, key):
    """Every Python block of the README that ends by itself runs."""
    out = run(program, server, key)
    if "receive_message" in program:
        assert "{'number': 17, 'items': ['tea', 'milk']}" in out
    if "create=False" in program:
        assert "there is no such stream" in out
        assert "may have been" not in out
    if "consumer in" in program:
        assert out == "shipped 19\n"
    if "health" in program:
        assert out.startswith("False 0 None\n")
    if "PartlyPublishedError" in program:
        assert out.startswith("10000 published, the last one is ")
    if "DuplicateConflict" in program:
        assert out.splitlines() == [
            "True",
            "published before, with another sum: True",
            "1 delayed",
            "cancelled: True",
        ]


def test_retention_as_shown(server, redis, key):
    """The blocks that publish and trim, in order: a group holds back all, until it is gone."""
    [publish] = [one for one in PROGRAMS if "PartlyPublishedError" in one]
    [retain] = [one for one in PROGRAMS if "Retention(" in one]
    run(publish, server, key)
    out = run(retain, server, key).splitlines()
    assert out[0] == "0 removed"
    assert out[1].startswith("archive holds back ")
    assert out[2:] == ["9010 removed without that group"]
    assert redis.xlen(f"{key}:lines") == 1000


def test_the_consumer_from_zero_to_dead_letters(server, redis, key, wait_until):
    """The blocks on consuming, in their order: publish, serve until SIGTERM, redrive, serve."""
    [publish] = [one for one in PROGRAMS if "for number in (17, 18, -1)" in one]
    [service] = [one for one in PROGRAMS if SERVICE in one]
    [redrive] = [one for one in PROGRAMS if "dry_run" in one]
    dead = f"{{{key}}}.dead"
    run(publish, server, key)

    with start(service, server, key) as process:
        wait_until(lambda: redis.xlen(dead) == 1, timeout=30)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert sorted(out.splitlines()) == ["order 17, delivery 1", "order 18, delivery 1"]
    assert err.count("ValueError: no such order") == 3

    [dead_id] = [entry_id.decode() for entry_id, _ in redis.xrange(dead)]
    assert run(redrive, server, key) == (
        f"these would be: [{dead_id!r}]\non their way: [{dead_id!r}]\n"
    )
    with start(service.replace("< 0", "is None"), server, key) as process:
        assert process.stdout.readline() == "order -1, delivery 1\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert redis.xlen(dead) == 0


def test_there_are_programs():
    """Both flavours are shown, and the blocks are found."""
    assert len(PROGRAMS) == 12


def done(counters):
    return (counters.acknowledged, counters.dead_lettered, counters.forwarded) == (5, 1, 1)


def test_the_user_with_few_rights(server, redis, key, wait_until, caplog):
    """The user that the README makes may do all that a consumer does."""
    [line] = re.findall(r"^ACL SETUSER (.*)$", README, re.MULTILINE)
    _, *rules = line.replace("orders", key).split()
    user = uuid.uuid4().hex
    redis.execute_command("ACL", "SETUSER", user, *rules)
    try:
        limited = StepRedisPoolParams.from_url(server.url, username=user, password="password")
        options = ConsumerOptions(retry=RetryPolicy(max_deliveries=2, delays=0.01))
        with StepRedisPool(limited) as pool, StepRedisStream(pool) as stream:
            for number in range(4):
                stream.publish_message(key, {"number": number})
            stream.publish_messages(key, [{"number": 3}] * 2)
            dedup = {"dedup_id": "order-3", "delay_seconds": 0.01}
            stream.publish_message(key, {"number": 3}, **dedup)
            stream.cancel_delayed(stream.publish_message(key, {}, delay_seconds=9))
            assert stream.delayed(key).count == 1
            with StepRedisConsumer(pool, key, "billing", options=options) as consumer:

                def handle(message):
                    match message.data["number"], message.delivery_count:
                        case (0, _):
                            raise ValueError
                        case (1, 1):
                            message.nack(0.01)
                        case (2, _):
                            message.forward(f"{{{key}}}.paid", {})

                thread = threading.Thread(target=consumer.run, args=(handle,))
                thread.start()
                wait_until(lambda: done(consumer.health().counters))
                health = consumer.health()
                consumer.stop()
                thread.join()
            assert health.error is None
            assert health.streams[0].pending == 0
            assert len(stream.redrive(key, "billing")) == 1
            assert stream.trim(key, Retention(max_len=0)) == Trimmed(removed=7, held_back=[])
            assert stream.forget_group(key, "billing")
            assert "XADD" not in caplog.text
            with redis_py.Redis(connection_pool=pool.get_pool()) as client:
                for command in (["FLUSHALL"], ["KEYS", "*"], ["SHUTDOWN"], ["GET", "other"]):
                    with pytest.raises(redis_py.exceptions.NoPermissionError):
                        client.execute_command(*command)
    finally:
        redis.execute_command("ACL", "DELUSER", user)


def test_table_of_methods():
    """The table has every method of a stream, with its parameters as they are."""
    for name, method in inspect.getmembers(step_redis.StepRedisStream, inspect.isfunction):
        if name.startswith("_"):
            continue
        parameters = list(inspect.signature(method).parameters.values())[1:]
        shown, keyword_only = [], False
        for parameter in parameters:
            if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
                shown.append("*")
                keyword_only = True
            text = str(parameter.replace(annotation=inspect.Parameter.empty))
            shown.append(text.replace("'", '"'))
        assert f"| `{name}({', '.join(shown)})`" in README


def test_table_of_errors():
    """The table has every error but the bases of the tree, and what it says of bases is so."""
    bases = {"StepRedisError", "PoolError", "StreamError", "MessageError", "DecodeError"}
    for name in step_redis.errors.__all__:
        assert f"`{name}`" in README or name in bases


def test_versions_of_python():
    """The README names the Pythons that the package declares."""
    classifiers = re.findall(
        r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    assert f"CPython {classifiers[0]} to {classifiers[-1]}" in README


def test_links_lead_to_files():
    """Every file that is linked or named in a command exists."""
    links = re.findall(r"\]\((?!https)([^)#]+)\)", README)
    assert links
    named = re.findall(r"examples/\w+\.py", README)
    assert all((ROOT / path).exists() for path in (*links, *named))


def test_ci_runs_the_test_command():
    """CI runs what a newcomer reads."""
    assert ".venv/bin/pytest" in command("test command")
    assert "examples/quickstart.py" in command("quickstart command")
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
