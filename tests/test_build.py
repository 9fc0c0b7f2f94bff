"""What users install: every way to build the package brings a working blocking flavour."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "src", "build_hooks", "tests")

# Run in the environment that has the package: where the flavours are, and what they are made of.
LOOK = """
import inspect, json, sys
import step_redis, step_redis.sync
import step_redis._sync.pool as generated

blocking, asynchronous = step_redis.sync.StepRedisPool, step_redis.StepRedisPool
with open(generated.__file__, encoding="utf-8") as file:
    first_line = file.readline()
print(json.dumps({
    "file": generated.__file__,
    "first_line": first_line.rstrip(),
    "same_class": blocking is generated.StepRedisPool,
    "two_classes": blocking is not asynchronous,
    "blocks": not inspect.iscoroutinefunction(blocking.__enter__),
    "async_only": inspect.iscoroutinefunction(asynchronous.__aenter__),
    "left_over": hasattr(blocking, "__aenter__") or hasattr(blocking, "aclose"),
}))
"""


def run(*command, cwd):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def tree(tmp_path):
    """Copy what a build needs, without the generated files."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
            )
        else:
            shutil.copy(ROOT / name, copy)
    for path in (copy / "src" / "step_redis" / "_sync").glob("*.py"):
        path.unlink()
    return copy


@pytest.fixture
def python(tmp_path):
    """Make an environment that also finds what the tests run with, after its own packages."""
    folder = tmp_path / "venv"
    run(sys.executable, "-m", "venv", folder, cwd=tmp_path)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", ask, cwd=tmp_path).strip())
    shared = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (packages / "zz_shared.pth").write_text("\n".join(shared) + "\n")
    return python


def build(tree, target, folder):
    """Build in the environment of the tests, which has hatchling and unasync."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=tree)
    [built] = folder.iterdir()
    return built


def install(python, *what, cwd):
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed")
    run(python, *pip, *what, cwd=cwd)


def assert_works(python, expected_in, cwd):
    seen = json.loads(run(python, "-I", "-c", LOOK, cwd=cwd))
    assert Path(seen.pop("file")).resolve().is_relative_to(expected_in.resolve())
    assert seen.pop("first_line").startswith("# Generated from _async/pool.py ")
    assert seen == {
        "same_class": True,
        "two_classes": True,
        "blocks": True,
        "async_only": True,
        "left_over": False,
    }


def package_files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    return {name for name in names if ".dist-info/" not in name}


def expected_files(tree):
    """Name what belongs into a wheel: every file of the package, and each generated one."""
    source = tree / "src"
    files = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    return files | {name.replace("/_async/", "/_sync/") for name in files}


def test_wheel_from_tree(tree, python, tmp_path):
    """A wheel built from the tree brings a working _sync and all of the package, nothing else."""
    expected = expected_files(tree)

    wheel = build(tree, "wheel", tmp_path / "dist")

    assert package_files(wheel) == expected
    assert "step_redis/py.typed" in expected
    assert "step_redis/_sync/pool.py" in expected
    install(python, wheel, cwd=tmp_path)
    assert_works(python, tmp_path / "venv", tmp_path)


def test_wheel_from_ignored_sync(tree, tmp_path):
    """A wheel has _sync also where a .gitignore names it."""
    (tree / ".gitignore").write_text("_sync/\n")
    expected = expected_files(tree)

    wheel = build(tree, "wheel", tmp_path / "dist")

    assert package_files(wheel) == expected


def test_wheel_from_sdist(tree, python, tmp_path):
    """A user's pip, isolated and knowing only the sdist, makes a wheel with a working _sync."""
    expected = expected_files(tree)

    sdist = build(tree, "sdist", tmp_path / "sdist")
    pip = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist")
    run(python, *pip, sdist, cwd=tmp_path)

    [wheel] = (tmp_path / "dist").iterdir()
    assert package_files(wheel) == expected
    install(python, wheel, cwd=tmp_path)
    assert_works(python, tmp_path / "venv", tmp_path)


def test_editable_install(tree, python, tmp_path):
    """An editable install, isolated too, makes _sync in the tree, where it is imported from."""
    install(python, "--editable", tree, cwd=tmp_path)

    assert_works(python, tree, tmp_path)


def test_trap_stops_the_build(tree, tmp_path):
    """A source that would convert wrongly makes no wheel, and the build says where it is."""
    path = tree / "src" / "step_redis" / "_async" / "pool.py"
    path.write_text(path.read_text() + "import asyncio\n")

    with pytest.raises(AssertionError, match=r"pool\.py:\d+: import of asyncio"):
        build(tree, "wheel", tmp_path / "dist")

    assert not list((tmp_path / "dist").glob("*.whl"))
