"""The consumer processes: started, killed, stopped, frozen and started again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs

from torture.journal import SUFFIX
from torture.settings import SLOTS

_PROGRAM = Path(__file__).with_name("worker.py")

# How long a consumer that is told to stop may take, with a server that answers; it is 9 s by its
# own limits.
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
    """All consumer processes; at most one lives for each slot.

    Args:
        folder: Where their journals and logs go.
        ports: Which port leads to the server, for each slot.
        plant: The bug to plant in them, if any.
    """

    def __init__(self, folder: Path, ports: list[int], plant: str | None) -> None:
        self._folder, self._ports, self._plant = folder, ports, plant
        self._processes: dict[int, Process] = {}
        self._started = [0] * len(SLOTS)
        self.problems: list[str] = []

    @property
    def names(self) -> list[str]:
        """The names of those that live."""
        return [process.name for process in self._processes.values()]

    def start(self, slot: int) -> None:
        """Start a slot's process, unless there is one."""
        if slot in self._processes:
            return
        self._started[slot] += 1
        name = f"w{slot}-{self._started[slot]}"
        arguments = [str(slot), name, str(self._ports[slot]), self._path(name, SUFFIX)]
        arguments += [self._plant] if self._plant else []
        with Path(self._path(name, ".log")).open("wb") as log:
            popen = subprocess.Popen(
                [sys.executable, str(_PROGRAM), *arguments], stdout=log, stderr=log
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
                    f"consumer {process.name} ended by itself with {code}: {self._end(process)}"
                )

    def start_all(self) -> None:
        """Thaw all; end those that were told to stop; start what is missing."""
        for slot in range(len(SLOTS)):
            self.thaw(slot)
        self._await_ended([one for one in self._processes.values() if one.ending_since is not None])
        for slot in range(len(SLOTS)):
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
                    f"consumer {process.name} was told to stop and did not within {_STOP_SECONDS}"
                    f" s: {self._end(process)}"
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
