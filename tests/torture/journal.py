"""Journals: what a process saw and did, line by line, so that the lines outlive its SIGKILL."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from step_redis.deadline import lease_now

SUFFIX = ".journal"


class Journal:
    """The journal of one process; each event is one write to the end of its file.

    Times are of the clock that leases are measured with; all processes of a machine share it.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(path, flags, 0o600)

    def write(self, event: str, **about: Any) -> None:
        line = json.dumps({"e": event, "t": lease_now(), **about}, separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")


class JournalReader:
    """Reads the journals of a folder as they grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new_lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name of a process and an event: each process's in order, once."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                yield path.name.removesuffix(SUFFIX), json.loads(line)
