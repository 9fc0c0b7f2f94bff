"""The README is true: its programs run, its tables are complete, its commands are the real ones."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import step_redis

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def command(name):
    """The command behind a marker such as <!-- test command -->."""
    [found] = re.findall(rf"^<!-- {name} -->\n```sh\n(.*)\n```$", README, re.MULTILINE)
    return found


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.splitlines()[0])
def test_programs_run(program, server, key):
    """Every Python block of the README runs as it is written, but for the stream's name."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace('"orders"', repr(key))],
        env=os.environ | {"STEP_REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    if "receive_message" in program:
        assert "{'number': 17, 'items': ['tea', 'milk']}" in ended.stdout
    if "create=False" in program:
        assert "there is no such stream" in ended.stdout
        assert "may have been" not in ended.stdout


def test_there_are_programs():
    """Both flavours are shown, and the blocks are found."""
    assert len(PROGRAMS) == 4


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
