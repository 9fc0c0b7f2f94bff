"""TLS against a real server: what works, and one clear error for each thing that does not."""

import asyncio
import shutil

import attrs
import pytest

from step_redis import (
    ConfigurationError,
    ConnectionFailedError,
    StepRedisError,
    StepRedisPoolParams,
    TlsFailedError,
)


@pytest.fixture
def tls_params(certificates):
    """Parameters for a TLS server whose certificate is to be verified."""

    def make(server, **fields):
        return (
            StepRedisPoolParams(
                host="localhost",
                port=server.tls.port,
                ssl_enable=True,
                ssl_ca_certs_file=str(certificates.ca),
                socket_timeout=2,
                socket_connect_timeout=2,
            )
            if not fields
            else attrs.evolve(make(server), **fields)
        )

    return make


async def ping(flavour, params):
    async with flavour.pool(params) as pool, flavour.stream(pool) as stream:
        return await stream.ping()


async def test_round_trip(flavour, tls_server, tls_params, key):
    """Publish, wait for and acknowledge messages over TLS."""
    async with (
        flavour.pool(tls_params(tls_server())) as pool,
        flavour.stream(pool) as stream,
    ):
        await stream.create_input_stream(key, "g")
        ids = [await stream.publish_message(key, {"n": n, "big": "x" * 200_000}) for n in range(3)]
        messages = await stream.receive_message(key, "g", "c", 3000, 10)
        assert [message["id"] for message in messages] == ids
        assert await stream.receive_message(key, "g", "c", 2500) == []
        assert await stream.acknowledge_message(key, "g", ids) == 3


async def test_mutual_tls_with_an_encrypted_key(flavour, tls_server, tls_params, certificates):
    """The server asks for a certificate; the client's key is encrypted."""
    server = tls_server("--tls-auth-clients", "yes")
    client = certificates.client
    mutual = tls_params(
        server,
        ssl_client_cert_file=str(client.cert),
        ssl_client_key_file=str(client.key),
        ssl_client_key_file_password=client.password,
    )
    assert await ping(flavour, mutual)


async def test_missing_client_certificate(flavour, tls_server, tls_params):
    """A server that asks for a certificate and gets none: the error says what to set."""
    server = tls_server("--tls-auth-clients", "yes")
    with pytest.raises(ConnectionFailedError) as caught:
        await ping(flavour, tls_params(server))
    assert "ssl_client_cert_file" in str(caught.value) or "reset" in str(caught.value).lower()
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize(
    ("shows", "fields", "text"),
    [
        (
            "server",
            {"ssl_ca_certs_file": "other_ca"},
            "certificate .* cannot be trusted: .*(issuer|self.signed)",
        ),
        ("wrong_host", {}, "cannot be trusted: .*(?i:hostname|host name).*Check host"),
        ("expired", {}, "cannot be trusted: certificate has expired"),
    ],
    ids=["wrong CA", "wrong host name", "expired"],
)
async def test_untrusted_certificates(
    flavour, tls_server, tls_params, certificates, shows, fields, text
):
    """A certificate that cannot be trusted is refused at once, with the reason."""
    fields = {name: str(getattr(certificates, value)) for name, value in fields.items()}
    with pytest.raises(TlsFailedError, match=text):
        await ping(flavour, tls_params(tls_server(shows=shows), **fields))


async def test_unverified_certificate(flavour, tls_server, tls_params, caplog):
    """ssl_cert_requested=False takes any certificate, and a warning is logged."""
    server = tls_server(shows="wrong_host")
    assert await ping(flavour, tls_params(server, ssl_cert_requested=False))
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "not verified" in record.getMessage()


async def test_plain_text_server(flavour, server, certificates):
    """A Redis server without TLS waits for more of what it takes for a command: the error asks."""
    params = StepRedisPoolParams(
        host=server.host,
        port=server.port,
        ssl_enable=True,
        ssl_ca_certs_file=str(certificates.ca),
        socket_timeout=1,
        socket_connect_timeout=0.5,
    )
    with pytest.raises(StepRedisError, match="does not speak TLS on this port"):
        await ping(flavour, params)


async def test_server_that_answers_in_plain_text(flavour, certificates):
    """Something that speaks, but not TLS, is told as that at once."""

    async def answer(reader, writer):
        await reader.read(1)
        writer.write(b"220 welcome, this is no Redis and no TLS either\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        params = StepRedisPoolParams(
            host="127.0.0.1", port=listener.sockets[0].getsockname()[1], ssl_enable=True
        )
        with pytest.raises(TlsFailedError, match="does not speak TLS on this port"):
            await ping(flavour, params)


async def test_plain_text_client(flavour, tls_server):
    """A client without TLS at a TLS port is told to set ssl_enable."""
    params = StepRedisPoolParams(
        host="localhost", port=tls_server().tls.port, socket_timeout=1, socket_connect_timeout=1
    )
    with pytest.raises(ConnectionFailedError, match="ssl_enable"):
        await ping(flavour, params)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"ssl_ca_certs_file": "/nowhere/ca.pem"}, "ssl_ca_certs_file: cannot read '/nowhere"),
        ({"ssl_ca_certs_file": "EMPTY"}, "ssl_ca_certs_file: .* holds no PEM certificates"),
        ({"ssl_client_cert_file": "/nowhere/x"}, "ssl_client_cert_file: cannot read"),
        ({"ssl_client_cert_file": "CERT", "ssl_client_key_file": "/nowhere/x"}, "key_file: cannot"),
        (
            {"ssl_client_cert_file": "CERT", "ssl_client_key_file": "KEY"},
            "encrypted and the password is missing or wrong",
        ),
        (
            {
                "ssl_client_cert_file": "CERT",
                "ssl_client_key_file": "KEY",
                "ssl_client_key_file_password": "hunter2",
            },
            "encrypted and the password is missing or wrong",
        ),
        (
            {"ssl_client_cert_file": "CERT", "ssl_client_key_file": "OTHER KEY"},
            "does not belong to",
        ),
    ],
)
def test_bad_files(flavour, certificates, tmp_path, fields, text):
    """A file that cannot be used is named when the pool is made, never its password."""
    empty = tmp_path / "empty.pem"
    shutil.copyfile("/dev/null", empty)
    files = {
        "EMPTY": empty,
        "CERT": certificates.client.cert,
        "KEY": certificates.client.key,
        "OTHER KEY": certificates.server.key,
    }
    fields = {name: str(files.get(value, value)) for name, value in fields.items()}
    with pytest.raises(ConfigurationError, match=text) as caught:
        flavour.pool(StepRedisPoolParams(ssl_enable=True, **fields))
    assert "hunter2" not in str(caught.value)
