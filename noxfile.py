"""Everything a change has to pass: `nox` runs it all, `nox -l` lists the parts."""

import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path, PurePosixPath

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.10.16"
nox.options.default_venv_backend = "venv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
# An install of the tree makes the blocking flavour anew, so its check comes first.
nox.options.sessions = ["generate", "lint", "types", "tests"]

ROOT = Path(__file__).resolve().parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
FLAVOURS = ("_async", "_sync")
COVERED_PERCENT = 95
SERVER_UNSET = dict.fromkeys(
    ("STEP_REDIS_TEST_URL", "STEP_REDIS_TEST_SERVER", "STEP_REDIS_TEST_IMAGE")
)


def _find_pyenv_pythons() -> None:
    """Let nox find what pyenv has installed; its shims run only the versions it has activated."""
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    folders = [str(path) for python in PYTHONS for path in installed.glob(f"{python}.*/bin")]
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])


_find_pyenv_pythons()


def _group(*names: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, *names)


@nox.session(python=PYTHONS, requires=["build"])
def tests(session: nox.Session) -> None:
    """Test the built package under coverage; arguments go to pytest."""
    _install_wheel(session)
    # pytest-xdist's workers are processes of their own and may change folder.
    measured = {
        "COVERAGE_FILE": str(ROOT / ".coverage"),
        "COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml"),
    }
    pytest = ("coverage", "run", "-m", "pytest", "-n", "auto")
    session.run(*pytest, *session.posargs, env=measured)
    if not session.posargs:
        session.notify("coverage")


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine and judge what the tests measured, each flavour for itself too."""
    session.install(*(wanted for wanted in _group("tests") if wanted.startswith("coverage")))
    enough = f"--fail-under={COVERED_PERCENT}"
    session.run("coverage", "combine")
    session.run("coverage", "report", "--skip-covered", enough)
    for flavour in FLAVOURS:
        only = f"--include=src/step_redis/{flavour}/*"
        session.run("coverage", "report", "--format=total", only, enough)


@nox.session(requires=["build"])
def servers(session: nox.Session) -> None:
    """Test on several servers: `-- [NAME=]PATH docker:IMAGE`, then arguments for pytest.

    Without any it takes those of STEP_REDIS_TEST_SERVERS, without that those on PATH. In the
    variable they are separated by spaces, or paths as in PATH.
    """
    named = list(takewhile(lambda word: not word.startswith("-"), session.posargs))
    options = session.posargs[len(named) :]
    chosen = dict(_servers(session, named or _servers_of_environment()))
    if not chosen:
        session.error("no server: name one, or install redis-server or valkey-server")

    _install_wheel(session)
    failed = []
    for name, variables in chosen.items():
        session.log(f"server: {name}")
        try:
            session.run("pytest", "-n", "auto", *options, env={**SERVER_UNSET, **variables})
        except CommandFailed:
            failed.append(name)
    if failed:
        session.error(f"failed on {', '.join(failed)}")


@nox.session(requires=["build"])
def torture(session: nox.Session) -> None:
    """Kill and freeze consumers and servers: `-- --seconds 3600 --server PATH --seed 1`.

    Without arguments it takes a minute, and then some for each bug that is planted to be found.
    """
    _install_wheel(session)
    if session.posargs:
        session.run("python", "tests/torture/run.py", *session.posargs)
        return
    whole = {"STEP_REDIS_TORTURE_SECONDS": "60", "STEP_REDIS_TORTURE_PLANTS": "1"}
    session.run("pytest", "-rP", "tests/torture", env=whole)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure beside other libraries: `-- --quick`, `-- --only 'run-*'`, `-- --plot FILE`."""
    session.install("--editable", ".[embedded]")
    for peer in _group("bench"):
        try:
            session.install(peer)
        except CommandFailed:
            session.warn(f"without {peer}, which cannot be installed")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format; `-- fix` mends what ruff can."""
    session.install(*_group("lint"))
    fix = session.posargs == ["fix"]
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of both flavours, and of the API as users call it, with two checkers."""
    session.install("--editable", ".", *_group("types"))
    session.run("mypy")
    session.run("mypy", "noxfile.py")
    session.run("pyright")


@nox.session
def generate(session: nox.Session) -> None:
    """Compare the blocking flavour with its source; `-- write` makes it anew."""
    session.install(*_group("generate"))
    check = [] if session.posargs == ["write"] else ["--check"]
    session.run("python", "build_hooks/generate_sync.py", *check)


@nox.session
def build(session: nox.Session) -> None:
    """Build what is published, into dist/, and check what is in it."""
    session.install("build", "twine", *PYPROJECT["build-system"]["requires"])
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    # What was measured on an earlier build does not count for this one.
    for measured in ROOT.glob(".coverage.*"):
        measured.unlink()
    # The wheel is made from the sdist, as on the machine of whoever finds no wheel.
    session.run("python", "-m", "build", "--no-isolation")
    [sdist], [wheel] = ROOT.glob("dist/*.tar.gz"), ROOT.glob("dist/*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
        _compare(session, sdist, names - {"PKG-INFO", ".gitignore"}, set(_files_of_sdist()))
    with zipfile.ZipFile(wheel) as archive:
        names = {re.sub(r"^[^/]+\.dist-info/", "", name) for name in archive.namelist()}
        metadata = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}
        package = {name.removeprefix("src/") for name in _files("src")}
        _compare(session, wheel, names, metadata | package)


def _install_wheel(session: nox.Session) -> None:
    """Install the built package, not the tree, and what the tests need."""
    [wheel] = ROOT.glob("dist/*.whl")
    session.install(f"{wheel}[embedded]", *_group("tests"))
    # pip keeps an older build of the same version unless it is told not to.
    session.install("--force-reinstall", "--no-deps", str(wheel))


def _servers_of_environment() -> list[str]:
    words = os.environ.get("STEP_REDIS_TEST_SERVERS", "").split()
    if not words:
        found = map(shutil.which, ("redis-server", "valkey-server"))
        return [path for path in found if path is not None]
    return [
        entry
        for word in words
        for entry in ([word] if word.startswith("docker:") else word.split(os.pathsep))
        if entry
    ]


def _servers(session: nox.Session, entries: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Give each server's name and the variable that makes the tests use it."""
    for entry in entries:
        if entry.startswith("docker:"):
            yield entry, {"STEP_REDIS_TEST_IMAGE": entry.removeprefix("docker:")}
            continue
        head, equals, tail = entry.partition("=")
        is_named = equals and "/" not in head
        path = Path(tail if is_named else entry).expanduser()
        program = shutil.which(path)
        if program is None:
            session.error(f"{entry}: there is no program {path}")
        yield head if is_named else entry, {"STEP_REDIS_TEST_SERVER": str(Path(program).absolute())}


def _files(name: str) -> set[str]:
    """Name the files of the tree that are or lie under `name`, as an archive names them."""
    path = ROOT / name
    found = [path] if path.is_file() else path.rglob("*")
    names = (PurePosixPath(file.relative_to(ROOT)) for file in found if file.is_file())
    # Tools keep their caches in folders such as __pycache__ and .mypy_cache.
    return {str(name) for name in names if not re.search(r"(^|/)[._][^/]*cache_*/", str(name))}


def _files_of_sdist() -> Iterator[str]:
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for name in (*included, "pyproject.toml", "README.md", "LICENSE"):
        yield from _files(name.lstrip("/"))


def _compare(session: nox.Session, archive: Path, names: set[str], wanted: set[str]) -> None:
    problems = [f"lacks {name}" for name in sorted(wanted - names)]
    problems += [f"should not have {name}" for name in sorted(names - wanted)]
    if problems:
        session.error("\n  ".join([f"{archive.name}:", *problems]))
