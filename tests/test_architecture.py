"""The example of the architecture document, to the letter but for the server's address."""

import subprocess
import sys

import pytest

EXAMPLE = """\
import asyncio
import logging
from step_redis.step_redis_pool import StepRedisPoolParams, StepRedisPool
from step_redis.step_redis_stream import StepRedisStream

async def main():
    # Setup logging
    logging.basicConfig(level=logging.DEBUG)
    logger = logging.getLogger("redis_example")

    # Configure Redis connection parameters
    params = StepRedisPoolParams(
        host="redis.example.com",
        port=6379,
        username="user",
        password="password",
        db=0,
        ssl_enable=True,
        # Other configuration parameters
    )

    # Create a Redis pool
    async with StepRedisPool(params=params, logger=logger) as pool:
        # Use the stream as a context manager
        async with StepRedisStream(pool, logger) as stream:
            # Create a stream with a consumer group
            await stream.create_input_stream("my_stream", "my_group", ttl_seconds=3600)

            # Publish a message
            await stream.publish_message("my_stream", {"data": "Hello, Redis!"}, 1000)

            # Consume a message
            messages = await stream.receive_message(
                "my_stream", "my_group", "consumer1", 5000, 1, ttl_seconds=3600
            )

            if messages:
                print(f"Received: {messages}")

                # Acknowledge the message
                for msg in messages:
                    message_id = msg['id']
                    await stream.acknowledge_message("my_stream", "my_group", message_id)

asyncio.run(main())
"""
OTHER_PARAMETERS = "# Other configuration parameters"


@pytest.mark.parametrize("ssl_enable", [False, True], ids=["plain", "TLS"])
def test_the_example_runs(private_server, tls_server, certificates, ssl_enable):
    """With its user and password, with and without TLS, it prints what it published."""
    server = tls_server() if ssl_enable else private_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "user", "on", ">password", "~*", "+@all")
    port = server.tls.port if ssl_enable else server.port
    program = EXAMPLE
    for written, here in {
        'host="redis.example.com"': 'host="localhost"',
        "port=6379": f"port={port}",
        "ssl_enable=True": f"ssl_enable={ssl_enable}",
        OTHER_PARAMETERS: f"ssl_ca_certs_file={str(certificates.ca)!r}," if ssl_enable else "",
    }.items():
        assert program.count(written) == 1
        program = program.replace(written, here)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "'data': {'data': 'Hello, Redis!'}" in ended.stdout
    assert "password" not in ended.stderr
    with server.client() as client:
        assert client.xpending("my_stream", "my_group")["pending"] == 0
        assert 0 < client.ttl("my_stream") <= 3600
