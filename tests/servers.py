"""Real Redis and Valkey servers for tests: where they come from and how to control them."""

import abc
import atexit
import datetime as dt
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import attrs
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import RedisError
from redis.retry import Retry
from testcontainers.community.redis import RedisContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import WaitStrategy

LOOPBACK = "127.0.0.1"
NOT_LOADED = (b"-LOADING",)
CUT_OFF = "loaded anyway because aof-load-truncated is enabled"
# What servers built without TLS say: before Redis 7.2, and since.
NO_TLS = ("Bad directive", "Failed finding TLS support")


class StartError(Exception):
    """A server did not start; the message has the end of its log."""


def wait_until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Wait for the first true value of `condition()` and return it; fail after `timeout` s."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not true after {timeout} s: {condition!r}")
        time.sleep(0.005)
    return value


def free_port() -> int:
    """Choose a port below those a system hands out itself, so that it stays free meanwhile."""
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        return port


@attrs.frozen
class Certificate:
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path
    password: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Certificates:
    """What a server and a client need to speak TLS, and what must make them refuse.

    A server shows `server`; `attrs.evolve(certificates, server=certificates.expired)` makes
    it show another one. The key of `client` is encrypted with its `password`.
    """

    ca: Path
    other_ca: Path
    server: Certificate
    wrong_host: Certificate
    expired: Certificate
    client: Certificate

    @classmethod
    def create(cls, folder: Path) -> Self:
        ca, other_ca = trustme.CA(), trustme.CA()
        ca.cert_pem.write_to_path(folder / "ca.pem")
        other_ca.cert_pem.write_to_path(folder / "other-ca.pem")

        def issue(name: str, *hosts: str, password: str | None = None, **terms: Any) -> Certificate:
            made = Certificate(folder / f"{name}.pem", folder / f"{name}.key", password)
            leaf = ca.issue_cert(*hosts, **terms)
            made.cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
            key = leaf.private_key_pem.bytes()
            made.key.write_bytes(key if password is None else _encrypted(key, password))
            return made

        expired = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
        return cls(
            ca=folder / "ca.pem",
            other_ca=folder / "other-ca.pem",
            server=issue("server", "localhost", LOOPBACK),
            wrong_host=issue("wrong-host", "elsewhere.example"),
            expired=issue("expired", "localhost", LOOPBACK, not_after=expired),
            client=issue("client", "client.example", password="key password"),
        )


def _encrypted(key: bytes, password: str) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )


@attrs.frozen
class Tls:
    """Where a server speaks TLS, and with which certificates."""

    port: int
    certificates: Certificates


@attrs.frozen
class Info:
    """Which program a server is."""

    name: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


class Server:
    """A server the tests talk to; this one is not theirs, so they cannot control it."""

    tls: Tls | None = None

    def __init__(self, url: str) -> None:
        self.url = url
        self.host = urlsplit(url).hostname or "localhost"
        self.port = urlsplit(url).port or 6379

    def client(self, **options: Any) -> Redis:
        """Make a plain blocking client for the test's own checks; it never repeats a command.

        Any option of `redis.Redis` may differ: `port=proxy.port` leads it through a proxy.
        """
        options = {"retry": Retry(NoBackoff(), 0)} | parse_url(self.url) | options
        has_tls = options.pop("connection_class", None) is not None
        return Redis(**{"ssl": has_tls} | options)

    @cached_property
    def info(self) -> Info:
        with self.client(decode_responses=True) as client:
            said: Any = client.info("server")
        name = said.get("server_name", "redis")
        version = said.get(f"{name}_version", said["redis_version"])
        return Info(name.capitalize(), _version(version))

    def stop(self) -> None:
        """Leave the server alone: others use it too."""


class PrivateServer(Server, abc.ABC):
    """A server of the tests' own, which they may kill, pause and restart.

    `args` are options as on a server's command line (`"--maxmemory", "10mb"`). Ports and data
    folder outlive `kill` and `restart`.
    """

    def __init__(self, name: str, args: tuple[str, ...], certificates: Certificates | None) -> None:
        self.host, self.port, self.args = LOOPBACK, free_port(), args
        self.tls = None if certificates is None else Tls(free_port(), certificates)
        self._name = name
        self.folder = Path(tempfile.mkdtemp(prefix="redis-test-"))
        atexit.register(self.stop)

    @property
    def url(self) -> str:
        password = dict(itertools.pairwise(self.args)).get("--requirepass", "")
        user = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{user}{self.host}:{self.port}/0"

    @abc.abstractmethod
    def kill(self) -> None:
        """End the server at once, as a crash would (SIGKILL)."""

    @abc.abstractmethod
    def pause(self) -> None:
        """Stop the server in its tracks: connections stay open, nothing answers (SIGSTOP)."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Let a paused server go on where it was (SIGCONT)."""

    def restart(self, *args: str, not_yet: tuple[bytes, ...] = NOT_LOADED) -> None:
        """Kill the server if it runs, start it again on its port and data.

        `args`, if any are given, take the place of those it had before.
        """
        self.kill()
        self.args = args or self.args
        self.start(not_yet)

    def stop(self) -> None:
        """End the server for good and delete its data."""
        atexit.unregister(self.stop)
        self._remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, not_yet: tuple[bytes, ...]) -> None:
        """Start the program and wait until it answers PING with something not in `not_yet`.

        Any other answer means that it is up, NOAUTH for example.
        """
        self._launch()
        try:
            wait_until(lambda: self._has_ended() or self._answers(not_yet), timeout=30)
        except AssertionError as error:
            raise StartError(
                f"{self._name} does not answer; its log:\n{self._log()[-2000:]}"
            ) from error
        if self._has_ended():
            raise StartError(f"{self._name} ended at once; its log:\n{self._log()[-2000:]}")
        if CUT_OFF in self._log():
            self._write_log_anew()

    def _write_log_anew(self) -> None:
        """Do what an operator has to after a crash that cut the append-only file off.

        Of a transaction or script that was cut off in the middle of a command, Redis leaves the
        beginning in the file. What is written next would become part of it, and with the next start
        it would all take effect, or nothing of it.
        """
        with self.client() as client:
            client.bgrewriteaof()

            def is_written() -> bool:
                said: Any = client.info("persistence")
                return not said["aof_rewrite_in_progress"] and not said["aof_rewrite_scheduled"]

            wait_until(is_written)

    def _answers(self, not_yet: tuple[bytes, ...]) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                answer = connection.recv(1024)
        except OSError:
            return False
        return bool(answer) and not answer.startswith(not_yet)

    def _configure(self, options: dict[str, str], certificates: Path) -> Path:
        """Write the server's configuration; `certificates` is where the program finds them."""
        options = {"save": "", "appendonly": "no", "daemonize": "no"} | options
        if self.tls is not None:
            shown = self.tls.certificates.server
            options |= {
                "tls-cert-file": str(certificates / shown.cert.name),
                "tls-key-file": str(certificates / shown.key.name),
                "tls-ca-cert-file": str(certificates / self.tls.certificates.ca.name),
                "tls-auth-clients": "no",
            }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        # As servers themselves read a command line: a word with two dashes begins an option.
        lines = "".join(
            f"\n{word[2:]}" if word.startswith("--") else f" {json.dumps(word)}"
            for word in (*words, *self.args)
        )
        path = self.folder / "server.conf"
        path.write_text(lines + "\n", encoding="utf-8")
        return path

    @abc.abstractmethod
    def _launch(self) -> None:
        """Start the program; whether it came up is checked from outside."""

    @abc.abstractmethod
    def _has_ended(self) -> bool: ...

    @abc.abstractmethod
    def _log(self) -> str: ...

    @abc.abstractmethod
    def _remove(self) -> None:
        """End the program in whatever state it is, leave nothing of it."""


class BinaryServer(PrivateServer):
    """A server program of this machine, run as a child process."""

    def __init__(
        self, binary: str, args: tuple[str, ...], certificates: Certificates | None
    ) -> None:
        super().__init__(binary, args, certificates)
        self._process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # Sending is not yet stopping: the server might answer one more command.
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _launch(self) -> None:
        options = {"port": str(self.port), "bind": LOOPBACK, "dir": str(self.folder)}
        folder = self.folder
        if self.tls is not None:
            options["tls-port"] = str(self.tls.port)
            folder = self.tls.certificates.ca.parent
        command = [self._name, self._configure(options, folder)]
        with (self.folder / "server.log").open("wb") as log:
            # In a session of its own: Ctrl-C is for the tests, which then stop their servers.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def _remove(self) -> None:
        self.kill()


class _AnswersLater(WaitStrategy):
    """Leaves waiting to `PrivateServer`, which also knows servers with a password."""

    def wait_until_ready(self, container: object) -> None:
        pass


class ContainerServer(PrivateServer):
    """A server in a container, published on loopback only."""

    def __init__(
        self, image: str, args: tuple[str, ...], certificates: Certificates | None
    ) -> None:
        super().__init__(image, args, certificates)
        self._container: RedisContainer | None = None

    def kill(self) -> None:
        if self._container is not None and not self._has_ended():
            self.resume()
            self._wrapped.kill()
            self._wrapped.wait()

    def pause(self) -> None:
        self._wrapped.pause()

    def resume(self) -> None:
        self._wrapped.reload()
        if self._wrapped.status == "paused":
            self._wrapped.unpause()

    def _launch(self) -> None:
        options = {"port": "6379", "bind": "0.0.0.0", "protected-mode": "no", "dir": "/data"}
        if self.tls is not None:
            options["tls-port"] = "6380"
        self._configure(options, Path("/certificates"))
        if self._container is not None:
            self._wrapped.start()
            return
        self._container = RedisContainer(self._name).waiting_for(_AnswersLater())
        self._container.ports = {"6379": (LOOPBACK, self.port)}
        # The server may run as another user than the tests.
        self.folder.chmod(0o755)
        self._container.with_volume_mapping(self.folder, "/configuration")
        if self.tls is not None:
            self._container.ports["6380"] = (LOOPBACK, self.tls.port)
            self._container.with_volume_mapping(self.tls.certificates.ca.parent, "/certificates")
        # Begins with a dash: images pass such commands on to the server, official or not.
        self._container.with_command(["--include", "/configuration/server.conf"]).start()

    @property
    def _wrapped(self) -> Any:
        assert self._container is not None
        return self._container.get_wrapped_container()

    def _has_ended(self) -> bool:
        self._wrapped.reload()
        return self._wrapped.status == "exited"

    def _log(self) -> str:
        return self._wrapped.logs(tail=100).decode(errors="replace")

    def _remove(self) -> None:
        if self._container is not None:
            if self._container._container is not None:
                self.resume()
            self._container.stop()
            self._container = None


class UrlSource:
    """A server that is already there; nobody can be given one of their own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def describe(self) -> str:
        server = self.shared()
        tls = "with TLS" if self._url.startswith("rediss:") else "without TLS"
        place = f"{server.host}:{server.port} (STEP_REDIS_TEST_URL), {tls}"
        try:
            return f"{server.info} at {place}"
        except RedisError as error:
            return f"{place}; it does not answer: {error}"

    def shared(self) -> Server:
        return Server(self._url)

    def start(self, *args: str, **options: Any) -> PrivateServer:
        pytest.skip("needs a server of its own; STEP_REDIS_TEST_URL names a shared one")


class ProgramSource(abc.ABC):
    """Servers started by the tests: a program and how to run it."""

    make: type[BinaryServer | ContainerServer]

    def __init__(self, program: str, place: str) -> None:
        self.program, self.place = program, place

    @abc.abstractmethod
    def run(self, *args: str) -> str:
        """Run the program to its end; returns what it wrote."""

    @cached_property
    def info(self) -> Info:
        said = self.run("--version")
        found = re.search(r"(\w+) server v=([\d.]+)", said)
        if found is None:
            raise StartError(f"{self.program} --version says {said!r}, so it is no Redis server")
        return Info(found[1], _version(found[2]))

    @cached_property
    def has_tls(self) -> bool:
        """Try to listen with TLS; without a certificate a server ends before it listens."""
        said = self.run("--port", "0", "--tls-port", "1", "--tls-cert-file", "none")
        return not any(text in said for text in NO_TLS)

    def describe(self) -> str:
        """Name and version of the servers, where they come from, whether they speak TLS."""
        try:
            info, has_tls = self.info, self.has_tls
        except Exception as error:  # noqa: BLE001 - tests without a server can run all the same
            return f"{self.place}, which does not run: {error}"
        return f"{info} from {self.place}, {'with' if has_tls else 'without'} TLS"

    def shared(self) -> Server:
        """Give the server that many tests share; the caller stops it."""
        return self.start()

    def start(
        self,
        *args: str,
        tls: Certificates | None = None,
        not_yet: tuple[bytes, ...] = NOT_LOADED,
    ) -> PrivateServer:
        """Start a server with these options; skip the test if it needs TLS and there is none."""
        if tls is not None and not self.has_tls:
            lacking = f"{self.program} has no TLS"
            if os.environ.get("STEP_REDIS_TEST_REQUIRE_TLS"):
                pytest.fail(f"{lacking}, which STEP_REDIS_TEST_REQUIRE_TLS asks for")
            pytest.skip(lacking)
        server = self.make(self.program, args, tls)
        try:
            server.start(not_yet)
        except BaseException:
            server.stop()
            raise
        return server


class BinarySource(ProgramSource):
    """Servers of a program that is a file on this machine."""

    make = BinaryServer

    def run(self, *args: str) -> str:
        command = [self.program, *args]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return ended.stdout + ended.stderr


class ContainerSource(ProgramSource):
    """Servers of an image, in containers."""

    make = ContainerServer

    def run(self, *args: str) -> str:
        with DockerContainer(self.program).with_command(list(args)) as container:
            container.wait()
            return b"".join(container.get_logs()).decode()
