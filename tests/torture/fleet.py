"""Processes of one kind: started, killed, stopped, frozen and started again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs

from torture.journal import SUFFIX

# How long a process that is told to stop may take, with a server that answers; it is 9 s for a
# consumer by its own limits.
_STOP_SECONDS = 30


@attrs.define(eq=False)
class Process:
    """One incarnation of a slot."""

    name: str
    popen: subprocess.Popen[bytes]
    is_frozen: bool = False
    ending_since: float | None = None
    """When it was told to stop."""
    was_killed: bool = False


class Fleet:
    """All processes of one program; at most one lives for each slot.

    Args:
        kind: What they are.
        program: A file beside this one.
        arguments: What it is told, for each slot; before its name and the path of its journal.
        folder: Where journals and logs go.
    """

    def __init__(self, kind: str, program: str, arguments: list[list[str]], folder: Path) -> None:
        self.kind, self._program = kind, str(Path(__file__).with_name(program))
        self._arguments, self._folder = arguments, folder
        self._processes: dict[int, Process] = {}
        self._started = [0] * len(arguments)
        self.problems: list[str] = []

    @property
    def names(self) -> list[str]:
        """The names of those that live."""
        return [process.name for process in self._processes.values()]

    def lives(self, slot: int) -> bool:
        """Whether a slot has a process."""
        return slot in self._processes

    def start(self, slot: int) -> None:
        """Start a slot's process, unless there is one."""
        if slot in self._processes:
            return
        self._started[slot] += 1
        name = f"{self.kind[0]}{slot}-{self._started[slot]}"
        arguments = [*self._arguments[slot], name, self._path(name, SUFFIX)]
        with Path(self._path(name, ".log")).open("wb") as log:
            popen = subprocess.Popen(
                [sys.executable, self._program, *arguments], stdout=log, stderr=log
            )
        self._processes[slot] = Process(name, popen)

    def kill(self, slot: int) -> bool:
        """End a process at once (SIGKILL); return whether there was one."""
        process = self._processes.pop(slot, None)
        if process is None:
            return False
        process.was_killed = True
        process.popen.kill()
        process.popen.wait()
        return True

    def terminate(self, slot: int) -> bool:
        """Tell a process to stop (SIGTERM); return whether there is one that was not told."""
        process = self._processes.get(slot)
        if process is None or process.ending_since is not None:
            return False
        process.ending_since = time.monotonic()
        process.popen.terminate()
        return True

    def freeze(self, slot: int) -> bool:
        """Stop a process in its tracks (SIGSTOP); return whether there is one that went on."""
        process = self._processes.get(slot)
        if process is None or process.is_frozen:
            return False
        process.is_frozen = True
        process.popen.send_signal(signal.SIGSTOP)
        return True

    def thaw(self, slot: int) -> None:
        """Let a frozen process go on (SIGCONT)."""
        process = self._processes.get(slot)
        if process is not None and process.is_frozen:
            process.is_frozen = False
            process.popen.send_signal(signal.SIGCONT)

    def look(self) -> None:
        """Note which processes have ended; none may end by itself."""
        for slot, process in list(self._processes.items()):
            code = process.popen.poll()
            if code is None:
                continue
            del self._processes[slot]
            # Its first line comes when it can be told to stop; before that, SIGTERM kills.
            was_young = code == -signal.SIGTERM and not self._has_journal(process)
            if process.ending_since is None or (code != 0 and not was_young):
                self.problems.append(
                    f"{self.kind} {process.name} ended by itself with {code}: {self._end(process)}"
                )

    def start_all(self) -> None:
        """Thaw all; end those that were told to stop; start what is missing."""
        slots = range(len(self._arguments))
        for slot in slots:
            self.thaw(slot)
        self._await_ended([one for one in self._processes.values() if one.ending_since is not None])
        for slot in slots:
            self.start(slot)

    def stop_all(self) -> None:
        """Let all stop by themselves."""
        for slot in list(self._processes):
            self.thaw(slot)
            self.terminate(slot)
        self._await_ended(list(self._processes.values()))

    def kill_all(self) -> None:
        """End all at once."""
        for slot in list(self._processes):
            self.kill(slot)

    def _await_ended(self, processes: list[Process]) -> None:
        until = time.monotonic() + _STOP_SECONDS
        for process in processes:
            try:
                process.popen.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.send_signal(signal.SIGUSR1)
                time.sleep(0.5)
                self.problems.append(
                    f"{self.kind} {process.name} was told to stop and did not within"
                    f" {_STOP_SECONDS} s: {self._end(process)}"
                )
                process.was_killed = True
                process.popen.kill()
                process.popen.wait()
        self._forget_killed()
        self.look()

    def _forget_killed(self) -> None:
        for slot, process in list(self._processes.items()):
            if process.was_killed:
                del self._processes[slot]

    def _has_journal(self, process: Process) -> bool:
        path = Path(self._path(process.name, SUFFIX))
        return path.exists() and path.stat().st_size > 0

    def _end(self, process: Process) -> str:
        """Return the end of what a process logged."""
        log = Path(self._path(process.name, ".log")).read_text(errors="replace")
        return "\n" + "\n".join(f"    {line}" for line in log.splitlines()[-40:])

    def _path(self, name: str, suffix: str) -> str:
        return str(self._folder / f"{name}{suffix}")
