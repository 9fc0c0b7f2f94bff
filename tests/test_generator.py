"""The generator of the blocking flavour: what it refuses, what it compares, what it makes."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "build_hooks"))

import generate_sync

ROOT = Path(__file__).resolve().parents[1]
HEADER = generate_sync.SOURCE_LINE + "\n"

SAMPLE = '''\
"""A sample of what the source may hold."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from step_redis._backend import aio


class Pool:
    """Connections."""

    __slots__ = ("_lock", "name")

    def __init__(self, name: str) -> None:
        self._lock = aio.Lock()
        self.name = name

    async def __aenter__(self) -> "Pool":
        await self.ping()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def ping(self) -> bool:
        """Tell whether {braces} and "quotes" survive."""
        async with self._lock:
            return (await aio.sleep(0)) is None

    async def aclose(self) -> None:
        await aio.gather(
            *[self.ping() for _ in range(2)]
        )  # a comment

    async def lines(self) -> AsyncIterator[str]:
        for number in range(2):
            yield f"{{{self.name!r:>{10 + number}}}}\\t{number:,} \\N{BULLET}" rf"\\d{number}"

    @asynccontextmanager
    async def borrowed(self) -> AsyncIterator[list[str]]:
        yield [line async for line in self.lines()]

    async def __anext__(self) -> str:
        raise StopAsyncIteration
'''

BLOCKING_SAMPLE = '''\
"""A sample of what the source may hold."""

from collections.abc import Iterator
from contextlib import contextmanager

from step_redis._backend import threads


class Pool:
    """Connections."""

    __slots__ = ("_lock", "name")

    def __init__(self, name: str) -> None:
        self._lock = threads.Lock()
        self.name = name

    def __enter__(self) -> "Pool":
        self.ping()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def ping(self) -> bool:
        """Tell whether {braces} and "quotes" survive."""
        with self._lock:
            return (threads.sleep(0)) is None

    def close(self) -> None:
        threads.gather(
            *[self.ping() for _ in range(2)]
        )  # a comment

    def lines(self) -> Iterator[str]:
        for number in range(2):
            yield f"{{{self.name!r:>{10 + number}}}}\\t{number:,} \\N{BULLET}" rf"\\d{number}"

    @contextmanager
    def borrowed(self) -> Iterator[list[str]]:
        yield [line for line in self.lines()]

    def __next__(self) -> str:
        raise StopIteration
'''

# What is added to the sample, the line it is reported for counted from there, and the report.
TRAPS = [
    ("import asyncio", 1, "import of asyncio: it belongs in _backend"),
    ("import asyncio.locks as locks", 1, "import of asyncio.locks"),
    ("from asyncio import sleep", 1, "import of asyncio.sleep"),
    ("from redis import asyncio as redis", 1, "import of redis.asyncio"),
    ("from redis.asyncio import Redis", 1, "import of redis.asyncio.Redis"),
    ("from . import asyncio", 1, "import of .asyncio"),
    ("from x import (\n    a,\n    asyncio,\n)", 3, "import of x.asyncio"),
    ("def f():\n    import anyio", 2, "import of anyio"),
    ("import os, trio", 1, "import of trio"),
    ("import threading", 1, "import of threading"),
    ("from queue import Queue", 1, "import of queue.Queue"),
    ("from time import monotonic", 1, "import of time.monotonic"),
    ("from concurrent.futures import Future", 1, "import of concurrent.futures.Future"),
    ('import importlib\nimportlib.import_module("x")', 1, "import of importlib"),
    ('__import__("x")', 1, "__import__: import at the top"),
    ("async def f():\n    await(f())", 2, "drops what follows await"),
    ("async def f():\n    await  f()", 2, "drops what follows await"),
    ("async def f():\n    await\tf()", 2, "drops what follows await"),
    ("async def f():\n    await \\\n        f()", 2, "drops what follows await"),
    ("async def f():\n    await\\\n        f()", 2, "drops what follows await"),
    ("async def f():\n    (await\n        f())", 2, "drops what follows await"),
    ("async def f():\n    (await # so\n        f())", 2, "drops what follows await"),
    ("async  def f(): pass", 1, "drops what follows async"),
    ("async \\\ndef f(): pass", 1, "drops what follows async"),
    ("async def f():\n    [x async\tfor x in f()]", 2, "drops what follows async"),
    ("async def f(task):\n    await task", 2, "await of a stored value"),
    ("async def f(self):\n    return await self.tasks[0]", 2, "await of a stored value"),
    ('async def f():\n    return f"{await f()}"', 2, "await in an f-string"),
    ('f"{[x async for x in y]}"', 1, "async in an f-string"),
    ('f"{aio.monotonic()}"', 1, "aio in an f-string"),
    ('x = (\n    "a"\n    f"{x.aclose}"\n)', 2, "aclose in an f-string"),
    ('f"""\n{AsyncPool}"""', 1, "AsyncPool in an f-string"),
    ("f'{x:{AsyncIterator}}'", 1, "AsyncIterator in an f-string"),
    ("rf'{x.__aenter__()!r}'", 1, "__aenter__ in an f-string"),
    ('f"await"', 1, "await in an f-string"),
    ("async def f(x):\n    return await anext(x)", 2, "anext: unasync leaves it alone"),
    ("aiter(x)", 1, "aiter: unasync leaves it alone"),
    ("from contextlib import aclosing", 1, "aclosing: unasync leaves it alone"),
    ("from collections.abc import Awaitable", 1, "Awaitable: unasync leaves it alone"),
    ("from collections.abc import Coroutine", 1, "Coroutine: unasync leaves it alone"),
    ("from collections.abc import AsyncGenerator", 1, "write AsyncIterator"),
    ("from contextlib import AsyncExitStack", 1, "would become SyncExitStack"),
    ("class AsyncPool: pass", 1, "AsyncPool would become SyncPool"),
    ("x: AsyncContextManager", 1, "would become SyncContextManager"),
    ('x = "AsyncIterator"', 1, 'the string "AsyncIterator" would be renamed'),
    ('x: "AsyncIterator[str]"', 1, 'the string "AsyncIterator[str]" would be renamed'),
    ('x = "AsyncPool is here"', 1, "would be renamed"),
    ("__all__ = [\n    'aclose',\n]", 2, "the string 'aclose' would be renamed"),
    ('x["aio"]', 1, "would be renamed"),
    ("def aclose(): pass\ndef close(): pass", 2, "close and aclose would get the same name"),
    (
        "class A:\n    def __enter__(self): pass\n    async def __aenter__(self): pass",
        3,
        "__aenter__ and __enter__ would get the same name",
    ),
    ("def broken(:", 1, "does not parse"),
    ("\n  x = 1", 2, "does not parse"),
]

# What nobody but a reader of the result would see, because unasync has no eyes for it.
LEFTOVERS = [
    ('"""Await the reply."""', 1, "Await"),
    ('x = """\nan async pool\n"""', 2, "async"),
    ("# uses asyncio", 1, "asyncio"),
    ("# see aio", 1, "aio"),
    ("x = 1  # then aclose()", 1, "aclose"),
    ("x = b'aclose'", 1, "aclose"),
    ('x: "list[AsyncIterator[str]]"', 1, "AsyncIterator"),
    ("x = StopAsyncIteration_ = 1", 1, "StopAsyncIteration_"),
    ("# calls __aexit__ and __await__", 1, "__aexit__"),
    ("# calls __aexit__ and __await__", 1, "__await__"),
    ("from step_redis._async import pool", 1, "_async"),
    ("from inspect import isawaitable", 1, "isawaitable"),
    ("from inspect import iscoroutinefunction", 1, "iscoroutinefunction"),
    ('x: "Coroutine[str]"', 1, "Coroutine"),
]


@pytest.fixture
def folders(tmp_path):
    source, target = tmp_path / "_async", tmp_path / "_sync"
    source.mkdir()
    (source / "pool.py").write_text(HEADER + SAMPLE)
    (source / "__init__.py").write_text(HEADER + '"""The generated flavour."""\n')
    return source, target


@pytest.fixture
def repo(tmp_path, folders):
    """Lay the sample out as the repository is, with a fresh `_sync`."""
    root = tmp_path / "repo"
    package = root / "src" / "step_redis"
    shutil.copytree(folders[0], package / "_async")
    (root / "build_hooks").mkdir()
    shutil.copy(ROOT / "build_hooks" / "generate_sync.py", root / "build_hooks")
    generate_sync.generate(package / "_async", package / "_sync")
    return root


def command_line(repo, *arguments, python=sys.executable):
    script = repo / "build_hooks" / "generate_sync.py"
    return subprocess.run(
        [python, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=repo.parent,
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.py")}


def test_sync_is_fresh():
    """What is committed in _sync is what its source makes, byte for byte."""
    package = ROOT / "src" / "step_redis"

    assert generate_sync.check(package / "_async", package / "_sync") == []


def test_sample_converts(folders):
    """Every construct the source may use becomes its blocking twin on the same line."""
    source, target = folders

    assert generate_sync.generate(source, target) == ["__init__.py", "pool.py"]

    first_line = "# Generated from _async/pool.py by build_hooks/generate_sync.py. Do not edit.\n"
    assert (target / "pool.py").read_bytes().decode() == first_line + BLOCKING_SAMPLE


def test_sample_holds_no_trap(folders):
    """Nothing is reported for code that converts well."""
    assert generate_sync.find_traps(folders[0] / "pool.py") == []


@pytest.mark.parametrize(("snippet", "line", "message"), TRAPS)
def test_trap_is_refused(folders, snippet, line, message):
    """A construct unasync gets wrong is refused with its place before anything is written."""
    source, target = folders
    path = source / "pool.py"
    path.write_text(HEADER + SAMPLE + snippet + "\n")
    line += (HEADER + SAMPLE).count("\n")

    with pytest.raises(generate_sync.GenerationError) as refusal:
        generate_sync.generate(source, target)

    reports = str(refusal.value).splitlines()
    assert any(r.startswith(f"{path}:{line}: ") and message in r for r in reports), reports
    assert not target.exists()


@pytest.mark.parametrize(("snippet", "line", "word"), LEFTOVERS)
def test_leftover_is_refused(folders, snippet, line, word):
    """A word of asyncio that would stay in code, text or comments is refused with its place."""
    source, target = folders
    path = source / "pool.py"
    path.write_text(HEADER + SAMPLE + snippet + "\n")
    line += (HEADER + SAMPLE).count("\n")

    with pytest.raises(generate_sync.GenerationError) as refusal:
        generate_sync.generate(source, target)

    reports = str(refusal.value).splitlines()
    assert f"{path}:{line}: {word} would stay; word it for both flavours" in reports
    assert not target.exists()


@pytest.mark.parametrize(
    "text", ["", SAMPLE, "\n" + HEADER, HEADER.replace("from it.", "from it. So.")]
)
def test_missing_first_line_is_refused(folders, text):
    """A source file that does not say so in its first line is no source."""
    source, target = folders
    (source / "pool.py").write_text(text)

    with pytest.raises(generate_sync.GenerationError, match=r"pool\.py:1: the first line has to"):
        generate_sync.generate(source, target)


def test_all_traps_are_listed(folders):
    """One run names the traps of every file, in the order of their lines."""
    source, target = folders
    (source / "pool.py").write_text(HEADER + "x = anext\nimport time\n")
    (source / "__init__.py").write_text(HEADER + "import trio\n")

    with pytest.raises(generate_sync.GenerationError) as refusal:
        generate_sync.generate(source, target)

    places = [report.split(": ")[0] for report in str(refusal.value).splitlines()]
    assert places == [
        f"{source / '__init__.py'}:2",
        f"{source / 'pool.py'}:2",
        f"{source / 'pool.py'}:3",
    ]


@pytest.mark.parametrize("content", [b"x = '\xff'", b"x = '\0'"])
def test_undecodable_source_is_refused(folders, content):
    """A source file that is not UTF-8, or not even text, is named."""
    source, target = folders
    (source / "pool.py").write_bytes(HEADER.encode() + content + b"\n")

    with pytest.raises(generate_sync.GenerationError, match=r"pool\.py:\d+: does not parse"):
        generate_sync.generate(source, target)


@pytest.mark.parametrize("name", ["folder", "folder.py", "step.lua", "pool.pyi"])
def test_skipped_entry_is_refused(folders, name):
    """Whatever unasync would silently skip in the source folder is named."""
    source, target = folders
    entry = source / name
    if name.startswith("folder"):
        entry.mkdir()
    else:
        entry.touch()

    with pytest.raises(generate_sync.GenerationError, match=f"{entry.name}: unasync would skip"):
        generate_sync.generate(source, target)


def test_empty_source_is_refused(tmp_path):
    """An empty source folder never makes an empty package."""
    (tmp_path / "_async").mkdir()

    with pytest.raises(generate_sync.GenerationError, match="there is no source"):
        generate_sync.generate(tmp_path / "_async", tmp_path / "_sync")


def test_unused_rule_is_refused(folders):
    """A rule that no source file uses is named."""
    with pytest.raises(generate_sync.GenerationError, match=r"^rule 'gone': no file uses it$"):
        generate_sync.generate(*folders, {**generate_sync.RULES, "gone": "went"})


def test_dotted_rule_is_refused(folders):
    """A rule with a dot is named, because it can never match."""
    with pytest.raises(generate_sync.GenerationError, match=r"^rule 'aio\.sleep': .* never"):
        generate_sync.generate(*folders, {**generate_sync.RULES, "aio.sleep": "sleep"})


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda _text: None, "unasync made nothing of it"),
        (lambda text: text.replace("import", "import import", 1), "does not compile"),
        (lambda text: text + "\n", "another number of lines"),
        (lambda text: text.rpartition("    def")[0], "another number of lines"),
    ],
)
def test_broken_result_is_refused(folders, monkeypatch, broken, message):
    """A result that is missing, broken or of another length is found before it is written."""
    source, target = folders
    unasync_files = generate_sync.unasync.unasync_files

    def break_pool(paths, rules):
        unasync_files(paths, rules)
        result = Path(rules[0].todir, "pool.py")
        text = broken(result.read_text())
        result.unlink()
        if text is not None:
            result.write_text(text)

    monkeypatch.setattr(generate_sync.unasync, "unasync_files", break_pool)

    with pytest.raises(generate_sync.GenerationError, match=message):
        generate_sync.generate(source, target)

    assert not target.exists()


@pytest.mark.parametrize(
    ("directory", "from_", "to"),
    [(".", "_async", "_sync"), (".", "./_async/", "../{}/_sync"), ("_async", ".", "../_sync")],
)
def test_source_is_never_changed(folders, monkeypatch, directory, from_, to):
    """Relative paths, with which unasync overwrites its source, work and leave it as it was."""
    source, target = folders
    before = contents(source)
    root = source.parent
    monkeypatch.chdir(root / directory)

    generate_sync.generate(Path(from_), Path(to.format(root.name)))

    assert generate_sync.check(source, target) == []
    assert contents(source) == before
    assert sorted(path.name for path in root.iterdir()) == ["_async", "_sync"]


def test_source_is_no_target(folders):
    """The source folder is never written to, even when it is named as the target."""
    source, _ = folders
    before = contents(source)

    with pytest.raises(generate_sync.GenerationError, match="the same folder"):
        generate_sync.generate(source, source)

    assert contents(source) == before


def test_second_run_changes_nothing(folders):
    """Making what is there already writes no file."""
    source, target = folders
    generate_sync.generate(source, target)
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}

    generate_sync.generate(source, target)

    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} == before


def test_left_over_file_is_deleted(folders):
    """A generated file whose source is gone goes too; caches stay."""
    source, target = folders
    (target / "__pycache__").mkdir(parents=True)
    (target / "gone.py").touch()

    generate_sync.generate(source, target)

    assert sorted(p.name for p in target.iterdir()) == ["__init__.py", "__pycache__", "pool.py"]


@pytest.mark.parametrize("name", ["folder.py", "notes.txt"])
def test_foreign_file_is_kept(folders, name):
    """What was never generated is not deleted but named, and nothing is written."""
    source, target = folders
    foreign = target / name
    target.mkdir()
    if name.startswith("folder"):
        foreign.mkdir()
    else:
        foreign.touch()

    with pytest.raises(generate_sync.GenerationError, match=f"{foreign.name}: not a generated"):
        generate_sync.generate(source, target)

    assert list(target.iterdir()) == [foreign]


def test_check_passes_when_fresh(repo):
    """--check says nothing and exits 0 when _sync is fresh."""
    checked = command_line(repo, "--check")

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def spoil(target, kind):
    path = target / "pool.py"
    content = path.read_bytes()
    if kind == "changed":
        path.write_bytes(content.replace(b"Connections", b"connections"))
    elif kind == "other newlines":
        path.write_bytes(content.replace(b"\n", b"\r\n"))
    elif kind == "truncated":
        path.write_bytes(content[: content.index(b"    def close")])
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "longer":
        path.write_bytes(content + b"\n")
    elif kind == "missing":
        path.unlink()
    elif kind == "left over":
        (target / "gone.py").write_bytes(content)
    elif kind == "not Python":
        (target / "gone.txt").touch()


@pytest.mark.parametrize(
    ("kind", "report"),
    [
        ("changed", "pool.py: changed"),
        ("other newlines", "pool.py: changed"),
        ("truncated", "pool.py: changed"),
        ("emptied", "pool.py: changed"),
        ("longer", "pool.py: changed"),
        ("missing", "pool.py: missing"),
        ("left over", "gone.py: left over"),
        ("not Python", "gone.txt: left over"),
    ],
)
def test_check_finds(repo, kind, report):
    """--check names a file that differs in any way, exits 1 and changes nothing."""
    target = repo / "src" / "step_redis" / "_sync"
    spoil(target, kind)
    before = contents(target)

    checked = command_line(repo, "--check")

    assert checked.returncode == 1
    assert checked.stderr.splitlines()[:-1] == [str(target / report)]
    assert contents(target) == before


def test_check_lists_all(repo):
    """--check names every file that differs, also when the whole folder is gone."""
    target = repo / "src" / "step_redis" / "_sync"
    shutil.rmtree(target)

    checked = command_line(repo, "--check")

    assert checked.returncode == 1
    assert checked.stderr.splitlines()[:-1] == [
        str(target / "__init__.py: missing"),
        str(target / "pool.py: missing"),
    ]


@pytest.mark.parametrize("kind", ["changed", "truncated", "missing", "left over"])
def test_command_mends(repo, kind):
    """Without --check the command makes _sync fresh again."""
    target = repo / "src" / "step_redis" / "_sync"
    fresh = contents(target)
    spoil(target, kind)

    made = command_line(repo)

    assert (made.returncode, made.stderr) == (0, "")
    assert contents(target) == fresh


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_command_reports_traps(repo, arguments):
    """The command exits 1 with the place of a trap, and leaves _sync alone."""
    package = repo / "src" / "step_redis"
    path = package / "_async" / "pool.py"
    path.write_text(HEADER + "import asyncio\n")
    before = contents(package / "_sync")

    made = command_line(repo, *arguments)

    assert made.returncode == 1
    assert made.stderr.startswith(f"{path}:2: import of asyncio: ")
    assert contents(package / "_sync") == before


def other_python(name, folder):
    """Give an interpreter of that version that has our unasync, or skip the test."""
    if name == f"python3.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(name)
    if (
        not found
        or subprocess.run([found, "-c", "pass"], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"no {name} that runs on PATH")
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    for command in (
        [found, "-m", "venv", folder],
        [python, "-m", "pip", "install", "-q", f"unasync=={version('unasync')}"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{name} cannot get unasync: {done.stdout}{done.stderr}")
    return python


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13", "python3.14"])
def test_same_result_on_every_python(repo, tmp_path, name):
    """Every supported Python makes the same bytes of the sample and of the real source."""
    python = other_python(name, tmp_path / "venv")
    package = repo / "src" / "step_redis"
    for path in (ROOT / "src" / "step_redis" / "_async").glob("*.py"):
        shutil.copy(path, package / "_async" / f"real_{path.name}")
    generate_sync.generate(package / "_async", package / "_sync")

    checked = command_line(repo, "--check", python=python)

    assert (checked.returncode, checked.stderr) == (0, "")
