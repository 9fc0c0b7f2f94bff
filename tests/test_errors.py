"""The tree of errors, and redis-py's failures as ours: what is said, kept, logged and hidden."""

import builtins
import copy
import errno
import inspect
import logging
import os
import pickle
import ssl

import pytest
import redis.exceptions

import step_redis
import step_redis.sync
from step_redis import errors
from step_redis.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    ConnectionFailedError,
    DecodeError,
    DuplicateConflict,
    EncodeError,
    GroupInUseError,
    GroupNotFoundError,
    HandlerTimeoutError,
    LeaseLost,
    MessageError,
    NotAStreamError,
    OperationTimeoutError,
    PartlyPublishedError,
    PermissionDeniedError,
    PoolClosedError,
    PoolError,
    PoolExhaustedError,
    ServerError,
    ServerLoadingError,
    ServerOutOfMemoryError,
    ServerReadOnlyError,
    StepRedisError,
    StreamError,
    StreamNotFoundError,
    TlsFailedError,
)
from step_redis.failures import (
    REDIS_FAILURES,
    Subject,
    connect_failure,
    is_reply,
    reply_failure,
    talk_failure,
    told,
)
from step_redis.options import Target

SECRET = "hunter2"
OPTIONS = {
    "host": "redis.example.com",
    "password": SECRET,
    "ssl_password": "key-secret",
    "socket_connect_timeout": 2.5,
}
TARGET = Target.of(OPTIONS)
TLS_TARGET = Target.of({**OPTIONS, "ssl_cert_reqs": "required"})
EFFECT = "the entry may have been written"

# --- The tree -------------------------------------------------------------------------------

TREE = {
    StepRedisError: (Exception,),
    ConfigurationError: (StepRedisError, ValueError),
    PoolError: (StepRedisError,),
    ConnectionFailedError: (PoolError, redis.exceptions.ConnectionError),
    TlsFailedError: (ConnectionFailedError,),
    AuthenticationFailedError: (PoolError, redis.exceptions.AuthenticationError),
    PermissionDeniedError: (PoolError, redis.exceptions.NoPermissionError),
    PoolExhaustedError: (PoolError, redis.exceptions.MaxConnectionsError),
    PoolClosedError: (PoolError,),
    OperationTimeoutError: (PoolError, redis.exceptions.TimeoutError, builtins.TimeoutError),
    ServerError: (StepRedisError, redis.exceptions.ResponseError),
    ServerLoadingError: (ServerError, redis.exceptions.BusyLoadingError),
    ServerReadOnlyError: (ServerError, redis.exceptions.ReadOnlyError),
    ServerOutOfMemoryError: (ServerError, redis.exceptions.OutOfMemoryError),
    StreamError: (StepRedisError,),
    StreamNotFoundError: (StreamError,),
    GroupNotFoundError: (StreamError,),
    GroupInUseError: (StreamError,),
    NotAStreamError: (StreamError,),
    MessageError: (StepRedisError,),
    EncodeError: (MessageError, redis.exceptions.DataError),
    DecodeError: (MessageError,),
    DuplicateConflict: (MessageError,),
    PartlyPublishedError: (StepRedisError,),
    LeaseLost: (MessageError,),
    HandlerTimeoutError: (MessageError, builtins.TimeoutError),
}

every_error = pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)


@pytest.mark.parametrize(("kind", "parents"), TREE.items(), ids=[kind.__name__ for kind in TREE])
def test_the_tree(kind, parents):
    """Each error has its place in the tree, and beside it redis-py's error of that meaning."""
    assert kind.__bases__ == parents


def test_the_tree_is_complete():
    """Every error of the module is in the tree and in its ``__all__``, which is sorted."""
    found = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, StepRedisError)
    }
    assert found == set(errors.__all__) == {kind.__name__ for kind in TREE}
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize("package", [step_redis, step_redis.sync], ids=["asyncio", "blocking"])
@every_error
def test_both_flavours_export_every_error(kind, package):
    """The errors are the same classes in both flavours."""
    assert getattr(package, kind.__name__) is kind
    assert kind.__name__ in package.__all__


@every_error
def test_errors_explain_themselves(kind):
    """Every error has a docstring of its own."""
    assert kind.__doc__
    assert "__doc__" in vars(kind)


# --- One error ------------------------------------------------------------------------------


def about(kind):
    """Return an error that is about everything an error can be about."""
    error = kind("what went wrong", outcome_unknown=True)
    error.stream = "orders"
    error.group = "billing"
    error.consumer = "worker-1"
    error.message_id = "5-1"
    return error


@every_error
def test_an_error_is_about_nothing_at_first(kind):
    """An error says what went wrong; what it is about is added where that is known."""
    error = kind("what went wrong")
    assert str(error) == "what went wrong"
    assert repr(error) == f"{kind.__name__}('what went wrong')"
    assert error.args == ("what went wrong",)
    assert error.outcome_unknown is False
    assert (error.stream, error.group, error.consumer, error.message_id) == (None,) * 4


@every_error
def test_the_text_says_what_the_error_is_about(kind):
    """Stream, group, consumer and message stand in the text."""
    assert str(about(kind)) == (
        "what went wrong (stream 'orders', group 'billing', consumer 'worker-1', message '5-1')"
    )
    assert repr(about(kind)) == f"{kind.__name__}({str(about(kind))!r})"


def test_the_text_leaves_out_what_is_not_known():
    """A call that has no consumer says nothing of one."""
    error = StreamError("no")
    error.stream = "orders"
    assert str(error) == "no (stream 'orders')"


@every_error
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_errors_survive_pickling(kind, again):
    """An error crosses processes with all that it carries."""
    error = about(kind)
    twin = again(error)
    assert type(twin) is kind
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert str(twin) == str(error)
    assert twin.outcome_unknown is True


@every_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_every_pickle_protocol(kind, protocol):
    """Old protocols, as some task queues use them, will do."""
    error = about(kind)
    assert vars(pickle.loads(pickle.dumps(error, protocol))) == vars(error)


@every_error
def test_errors_of_redis_py_keep_their_attributes(kind):
    """Code written for redis-py finds what it expects on errors that are also redis-py's."""
    error = kind("what went wrong")
    if isinstance(error, redis.exceptions.RedisError):
        assert error.status_code is None
        assert isinstance(error.error_type, redis.exceptions.ExceptionType)


def test_a_timeout_is_the_builtin_one():
    """``except TimeoutError`` catches it without any import, with the text where it belongs."""
    with pytest.raises(TimeoutError, match=r"^too late$"):
        raise OperationTimeoutError("too late")


# --- redis-py's failures as ours ------------------------------------------------------------


def chained(error, *causes):
    """Return an error with the causes that a traceback would show."""
    link = error
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return error


def redis_error(name, text="", code=None):
    return getattr(redis.exceptions, name)(text, status_code=code)


def verification_error():
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] (_ssl.c:1006)")
    error.verify_code = 62
    error.verify_message = "Hostname mismatch"
    return error


def ssl_error(text, reason=None):
    error = ssl.SSLError(1, text)
    error.reason = reason
    return error


# What the server answered: the same failure whether it comes while connecting or in a reply.
REPLIES = {
    "wrong password": (
        redis_error("AuthenticationError", "invalid username-password pair", "WRONGPASS"),
        AuthenticationFailedError,
        "refused to authenticate: invalid username-password pair. Check username and password",
    ),
    "no password": (
        redis_error("AuthenticationError", "Authentication required.", "NOAUTH"),
        AuthenticationFailedError,
        "refused to authenticate: Authentication required. Check username and password",
    ),
    "no permission": (
        redis_error("NoPermissionError", "User app has no permissions to run 'xadd'", "NOPERM"),
        PermissionDeniedError,
        "denied permission: User app has no permissions to run 'xadd'. Give the user",
    ),
    "loading": (
        redis_error("BusyLoadingError", "Redis is loading the dataset in memory", "LOADING"),
        ServerLoadingError,
        "is still loading its data",
    ),
    "read-only": (
        redis_error("ReadOnlyError", "You can't write against a read only replica.", "READONLY"),
        ServerReadOnlyError,
        "read-only replica: connect to the primary",
    ),
    "out of memory": (
        redis_error("OutOfMemoryError", "command not allowed", "OOM"),
        ServerOutOfMemoryError,
        "has reached its maxmemory",
    ),
    "other": (
        redis_error("ResponseError", "ERR syntax error"),
        ServerError,
        "answered with an error: ERR syntax error",
    ),
    "other of a known code": (
        redis_error("ResponseError", "syntax error", "ERR"),
        ServerError,
        "answered with an error: syntax error",
    ),
    "masterdown": (
        redis_error("MasterDownError", "Link with MASTER is down", "MASTERDOWN"),
        ServerError,
        "Link with MASTER is down",
    ),
    "no text at all": (redis_error("ResponseError", ""), ServerError, "answered with an error"),
}


@pytest.mark.parametrize(("error", "kind", "text"), REPLIES.values(), ids=REPLIES)
def test_a_refusal_of_the_server_is_the_same_everywhere(error, kind, text):
    """A server that answers with an error has carried out nothing: the outcome is known."""
    for failure in (connect_failure(error, TARGET), talk_failure(error, TARGET, EFFECT)):
        assert type(failure) is kind
        assert text in str(failure)
        assert TARGET.name in str(failure)
        assert failure.outcome_unknown is False
        assert failure.__cause__ is error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            redis_error("ResponseError", "NOGROUP No such key 'orders' or consumer group"),
            GroupNotFoundError,
            "create_input_stream makes both",
        ),
        (
            redis_error("ResponseError", "WRONGTYPE Operation against a key"),
            NotAStreamError,
            "the key holds something else than a stream",
        ),
        (
            redis_error("ResponseError", "UNBLOCKED the stream key no longer exists"),
            ServerError,
            "UNBLOCKED the stream key no longer exists",
        ),
        *(
            row
            for name, row in REPLIES.items()
            if name not in ("wrong password", "no password", "loading")
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_error_replies(error, kind, text):
    """Each error reply stands for one error of ours, by its code."""
    failure = reply_failure(error, TARGET)
    assert type(failure) is kind
    assert text in str(failure)
    assert failure.outcome_unknown is False


def test_the_code_of_a_reply_is_not_looked_for_inside_its_text():
    """A text that mentions a code is not of that code."""
    error = redis_error("ResponseError", "ERR the script said NOGROUP")
    assert type(reply_failure(error, TARGET)) is ServerError


@pytest.mark.parametrize(
    ("reply", "code", "matches"),
    [
        (
            redis_error("ResponseError", "BUSYGROUP Consumer Group name already exists"),
            "BUSYGROUP",
            True,
        ),
        (redis_error("ReadOnlyError", "You can't write", "READONLY"), "READONLY", True),
        (redis_error("ResponseError", "ERR BUSYGROUP"), "BUSYGROUP", False),
        (redis_error("ConnectionError", "BUSYGROUP"), "BUSYGROUP", False),
        (b"BUSYGROUP", "BUSYGROUP", False),
        (None, "BUSYGROUP", False),
    ],
)
def test_an_error_reply_is_known_by_its_code(reply, code, matches):
    """The code is the first word, also where redis-py has taken it out of the text."""
    assert is_reply(reply, code) is matches


CONNECTING = {
    "pool exhausted": (
        redis.exceptions.ConnectionError("No connection available."),
        PoolExhaustedError,
        "raise max_connections or connection_available_timeout",
    ),
    "pool exhausted, by class": (
        redis.exceptions.MaxConnectionsError("Too many connections"),
        PoolExhaustedError,
        "raise max_connections",
    ),
    "refused": (
        chained(
            redis.exceptions.ConnectionError("Error 111 connecting to redis.example.com:6379."),
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 6379)"),
        ),
        ConnectionFailedError,
        f"cannot connect to redis.example.com:6379: {os.strerror(errno.ECONNREFUSED)}. Check host",
    ),
    "no reason of the system": (
        redis.exceptions.ConnectionError("Connection closed by server."),
        ConnectionFailedError,
        "cannot connect to redis.example.com:6379: Connection closed by server. Check host",
    ),
    "too many clients": (
        redis_error("ConnectionError", "max number of clients reached", "ERR"),
        ConnectionFailedError,
        "max number of clients reached",
    ),
    "unknown host": (
        OSError(-2, "Name or service not known"),
        ConnectionFailedError,
        "Name or service not known",
    ),
    "timeout of redis-py": (
        redis.exceptions.TimeoutError("Timeout connecting to server"),
        OperationTimeoutError,
        "took longer than 2.5 s (socket_connect_timeout)",
    ),
    "timeout of Python": (
        TimeoutError("timed out"),
        OperationTimeoutError,
        "took longer than 2.5 s (socket_connect_timeout)",
    ),
    "no Redis": (
        redis.exceptions.InvalidResponse("Protocol Error: b'HTTP/1.1 400'"),
        ConnectionFailedError,
        "does not answer like a Redis server. If it expects TLS, set ssl_enable=True",
    ),
    "certificate": (
        chained(redis.exceptions.ConnectionError("Error 1 connecting"), verification_error()),
        TlsFailedError,
        "cannot be trusted: Hostname mismatch. Check host, ssl_ca_certs_file",
    ),
    "plain text on the TLS side": (
        chained(
            redis.exceptions.ConnectionError("Error 1"),
            ssl_error("[SSL: WRONG_VERSION_NUMBER]", "WRONG_VERSION_NUMBER"),
        ),
        TlsFailedError,
        "does not speak TLS on this port: use its TLS port, or set ssl_enable=False",
    ),
    "plain text, said otherwise": (
        ssl_error("[SSL: RECORD_LAYER_FAILURE]", "RECORD_LAYER_FAILURE"),
        TlsFailedError,
        "does not speak TLS on this port",
    ),
    "client certificate wanted": (
        ssl_error("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        TlsFailedError,
        "TLSV13_ALERT_CERTIFICATE_REQUIRED. If the server asks for a client certificate, set",
    ),
    "TLS without a reason": (ssl_error("odd"), TlsFailedError, "failed: "),
    "TLS far down the chain": (
        chained(
            redis.exceptions.ConnectionError("Error 1"),
            redis.exceptions.ConnectionError("Error 2"),
            ssl_error("[SSL: UNKNOWN_PROTOCOL]", "UNKNOWN_PROTOCOL"),
        ),
        TlsFailedError,
        "UNKNOWN_PROTOCOL",
    ),
}


@pytest.mark.parametrize(("error", "kind", "text"), CONNECTING.values(), ids=CONNECTING)
def test_failures_of_connecting(error, kind, text):
    """Each says where, why and what to do; nothing was sent, so that the outcome is known."""
    failure = connect_failure(error, TARGET)
    assert type(failure) is kind
    assert text in str(failure)
    assert TARGET.name in str(failure)
    assert failure.outcome_unknown is False
    assert failure.__cause__ is error


def test_what_a_retry_handles_is_no_cause():
    """A call within `except` does not blame the error that is being handled there."""
    handled = verification_error()
    error = redis.exceptions.ConnectionError("Connection closed by server.")
    error.__context__ = handled
    assert type(talk_failure(error, TARGET, EFFECT, handled)) is ConnectionFailedError
    assert type(connect_failure(error, TARGET, handled)) is ConnectionFailedError
    gone = FileNotFoundError(errno.ENOENT, "no such file")
    error.__context__ = gone
    assert "broke: Connection closed by server" in str(talk_failure(error, TARGET, None, gone))


def test_tls_that_failed_in_a_context_is_found():
    """What was being handled when redis-py raised counts as a cause too."""
    error = redis.exceptions.ConnectionError("Error 1 connecting")
    error.__context__ = verification_error()
    assert type(connect_failure(error, TARGET)) is TlsFailedError


def test_what_the_caller_was_handling_is_no_cause():
    """A call made while some other TLS failure is handled does not blame TLS."""
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    refused.__context__ = verification_error()
    error = chained(redis.exceptions.ConnectionError("Error 111 connecting"), refused)
    assert type(connect_failure(error, TARGET)) is ConnectionFailedError
    assert type(talk_failure(error, TARGET, EFFECT)) is ConnectionFailedError


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("Connection closed by server."),
        redis.exceptions.TimeoutError("Timeout connecting to server"),
        redis.exceptions.InvalidResponse("Protocol Error"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_tls_on_one_side_only_is_suspected(error):
    """Where TLS meets plain text, both sides only wait or hang up: the hint fits the setting."""
    assert str(connect_failure(error, TARGET)).endswith(". If it expects TLS, set ssl_enable=True")
    assert str(connect_failure(error, TLS_TARGET)).endswith(
        ". If it does not speak TLS on this port, use its TLS port or set ssl_enable=False"
    )


TALKING = {
    "timeout of redis-py": (
        redis.exceptions.TimeoutError("Timeout reading from socket"),
        OperationTimeoutError,
        "did not answer in time",
    ),
    "timeout of Python": (TimeoutError(), OperationTimeoutError, "did not answer in time"),
    "closed": (
        redis.exceptions.ConnectionError("Connection closed by server."),
        ConnectionFailedError,
        "the connection to redis.example.com:6379 broke: Connection closed by server",
    ),
    "reset": (
        ConnectionResetError(errno.ECONNRESET, "reset"),
        ConnectionFailedError,
        f"broke: {os.strerror(errno.ECONNRESET)}",
    ),
    "nonsense": (
        redis.exceptions.InvalidResponse("Protocol Error"),
        ConnectionFailedError,
        "broke: Protocol Error",
    ),
    "TLS": (
        chained(
            redis.exceptions.ConnectionError("x"),
            ssl_error("[SSL: DECRYPTION_FAILED]", "DECRYPTION_FAILED"),
        ),
        TlsFailedError,
        "DECRYPTION_FAILED",
    ),
}


@pytest.mark.parametrize(("error", "kind", "text"), TALKING.values(), ids=TALKING)
def test_failures_of_talking(error, kind, text):
    """Once sending has begun the reply is lost, and a command may have had its effect."""
    failure = talk_failure(error, TARGET, EFFECT)
    assert type(failure) is kind
    assert text in str(failure)
    assert TARGET.name in str(failure)
    assert failure.outcome_unknown is True
    assert failure.__cause__ is error


@pytest.mark.parametrize(("error", "kind", "text"), TALKING.values(), ids=TALKING)
def test_the_possible_effect_is_told(error, kind, text):
    """Whoever reads the error knows what may have happened."""
    assert EFFECT in str(talk_failure(error, TARGET, EFFECT))


@pytest.mark.parametrize(("error", "kind", "text"), TALKING.values(), ids=TALKING)
def test_a_command_without_effect_has_no_unknown_outcome(error, kind, text):
    """What changes nothing can be repeated without a thought."""
    failure = talk_failure(error, TARGET, None)
    assert type(failure) is kind
    assert text in str(failure)
    assert "; " not in str(failure)
    assert failure.outcome_unknown is False


def test_redis_failures_are_all_that_redis_py_raises():
    """Nothing of redis-py's, of TLS or of the operating system slips through."""
    for error in (
        redis.exceptions.RedisError(),
        redis.exceptions.InvalidResponse(),
        TimeoutError(),
        ssl.SSLError(),
        ConnectionResetError(),
    ):
        assert isinstance(error, REDIS_FAILURES)


# --- Secrets --------------------------------------------------------------------------------


def leaking(kind, **options):
    return kind(
        f"unknown command 'x', with args beginning with: '{SECRET}' 'key-secret'", **options
    )


@pytest.mark.parametrize(
    "error",
    [
        leaking(redis.exceptions.ResponseError),
        leaking(redis.exceptions.ConnectionError),
        leaking(redis.exceptions.AuthenticationError),
        leaking(redis.exceptions.NoPermissionError, status_code="NOPERM"),
        leaking(redis.exceptions.InvalidResponse),
        leaking(redis.exceptions.TimeoutError),
        chained(redis.exceptions.ConnectionError("x"), leaking(OSError)),
        chained(redis.exceptions.ConnectionError("x"), leaking(ssl_error)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_secrets_are_neither_in_the_text_nor_in_the_causes(error):
    """Servers quote what they do not understand: secrets are crossed out, causes cut off."""
    failures = [connect_failure(error, TARGET), talk_failure(error, TARGET, EFFECT)]
    if isinstance(error, redis.exceptions.ResponseError):
        failures.append(reply_failure(error, TARGET))
    for failure in failures:
        for secret in TARGET.secrets:
            assert secret not in str(failure)
        assert failure.__cause__ is None
        assert failure.__context__ is None


def test_the_rest_of_a_text_with_a_secret_is_kept():
    """Only the secret is crossed out, but arguments that the server quotes go altogether."""
    failure = reply_failure(redis.exceptions.ResponseError(f"no {SECRET} today"), TARGET)
    assert "no *** today" in str(failure)
    failure = reply_failure(leaking(redis.exceptions.ResponseError), TARGET)
    assert "unknown command 'x'; its arguments are not shown" in str(failure)
    assert "key-secret" not in str(failure)


# --- Telling --------------------------------------------------------------------------------

SUBJECT = Subject("acknowledge_message", "orders", "billing", "worker-1", "5-1")


def test_a_failure_is_given_its_subject_and_logged_once(caplog):
    """Where the user's call ends, the failure learns what it is about and is logged."""
    failure = ConnectionFailedError("the connection broke", outcome_unknown=True)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ConnectionFailedError) as caught,
        told(logging.getLogger("mine"), SUBJECT),
    ):
        raise failure
    assert caught.value is failure
    assert (failure.stream, failure.group) == ("orders", "billing")
    assert (failure.consumer, failure.message_id) == ("worker-1", "5-1")
    assert failure.outcome_unknown is True
    [record] = caplog.records
    assert (record.name, record.levelname) == ("mine", "ERROR")
    assert record.getMessage() == (
        "acknowledge_message failed: ConnectionFailedError: the connection broke"
        " (stream 'orders', group 'billing', consumer 'worker-1', message '5-1')"
    )


def test_what_a_failure_knows_already_is_kept():
    """Who raised it may know better than who was called."""
    failure = StreamError("no")
    failure.stream = "dead"
    with pytest.raises(StreamError), told(logging.getLogger("mine"), SUBJECT):
        raise failure
    assert (failure.stream, failure.group) == ("dead", "billing")


def test_a_call_without_a_stream_has_none_in_its_failure(caplog):
    """What a call is not about stays None."""
    failure = PoolClosedError("closed")
    with pytest.raises(PoolClosedError), told(logging.getLogger("mine"), Subject("ping")):
        raise failure
    assert (failure.stream, failure.group, failure.consumer, failure.message_id) == (None,) * 4
    assert [record.getMessage() for record in caplog.records] == [
        "ping failed: PoolClosedError: closed"
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("the user's own")], ids=repr)
def test_what_is_not_ours_passes_untouched(error, caplog):
    """Interruptions and the user's own errors are not failures of the call."""
    with pytest.raises(type(error)) as caught, told(logging.getLogger("mine"), SUBJECT):
        raise error
    assert caught.value is error
    assert not caplog.records


def test_nothing_is_logged_without_a_failure(caplog):
    """A call that succeeds says nothing."""
    with caplog.at_level(logging.DEBUG), told(logging.getLogger("mine"), SUBJECT):
        pass
    assert not caplog.records


def test_secrets_are_not_logged(caplog):
    """What goes to the log, tracebacks that a user adds included, shows no secret."""
    logger = logging.getLogger("mine")
    error = leaking(redis.exceptions.ConnectionError)
    try:
        with told(logger, SUBJECT):
            raise talk_failure(error, TARGET, EFFECT)
    except StepRedisError:
        logger.exception("the user's own line")
    assert len(caplog.records) == 2
    assert "its arguments are not shown" in caplog.text
    for secret in TARGET.secrets:
        assert secret not in caplog.text


def test_a_subject_names_its_consumer():
    """Stream, group and consumer together name a consumer."""
    assert SUBJECT.consumer_path() == ("orders", "billing", "worker-1")
