"""The Lua scripts: each a file with a header that says what it takes, returns and changes."""

import hashlib
import re
from functools import cache
from importlib.resources import files

import attrs

__all__ = ["MOST_VALUES", "Script", "script"]

MOST_VALUES = 7900
"""How many names and values an entry may have that a script writes: more exceed Lua's stack."""

_INCLUDE = re.compile(r"^-- include ([a-z_]+\.lua)$", re.MULTILINE)


@attrs.frozen
class Script:
    """A script as the server gets it."""

    name: str
    text: str = attrs.field(repr=False)
    sha: str


def _read(file: str) -> str:
    text = files(__name__).joinpath(file).read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: _read(found[1]).rstrip(), text)


@cache
def script(name: str) -> Script:
    """Return a script by its name, what it includes put in."""
    text = _read(f"{name}.lua")
    return Script(name, text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324 - Redis's way
