"""StepRedisPoolParams: every field, wherever it comes from, and what redis-py is told of it."""

import logging
import pickle
import socket
from urllib.parse import quote

import attrs
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

import step_redis.step_redis_pool
import step_redis.sync
from step_redis import ConfigurationError, StepRedisPoolParams
from step_redis.options import Target, check_tls_files, pool_options, reader_options

SECRET = "hunter2"

DEFAULTS = {
    "host": "localhost",
    "port": 6379,
    "username": None,
    "password": "",
    "db": 0,
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "socket_keep_idle": 30,
    "socket_keep_alive": True,
    "socket_keep_cnt": 3,
    "socket_keep_interval": 5,
    "ssl_enable": False,
    "ssl_client_key_file": None,
    "ssl_client_key_file_password": None,
    "ssl_client_cert_file": None,
    "ssl_cert_requested": True,
    "ssl_ca_certs_file": None,
    "health_check_interval": 30,
    "max_connections": 20,
    "max_read_connections": 100,
    "connection_available_timeout": 20,
    "protocol": 3,
}

ARCHITECTURE = {
    *("host", "port", "username", "password", "db", "socket_timeout", "socket_connect_timeout"),
    *("socket_keep_idle", "socket_keep_alive", "socket_keep_cnt", "ssl_enable"),
    *("ssl_client_key_file", "ssl_client_key_file_password", "ssl_client_cert_file"),
    *("ssl_cert_requested", "ssl_ca_certs_file", "health_check_interval", "max_connections"),
    *("connection_available_timeout", "protocol"),
}


def shown(error):
    """Return all that a traceback shows of an error, its causes included."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(texts)


# --- The fields -----------------------------------------------------------------------------


def test_without_arguments_a_server_on_this_machine_is_reached():
    """Every field has a default; together they mean a local server without a password."""
    assert attrs.asdict(StepRedisPoolParams()) == DEFAULTS


def test_the_fields_are_those_of_the_architecture():
    """The published fields keep their names; two are added."""
    fields = set(attrs.fields_dict(StepRedisPoolParams))
    assert fields == ARCHITECTURE | {"socket_keep_interval", "max_read_connections"}


def test_the_class_is_the_same_under_every_import_path():
    """Both flavours, and the path of the architecture, have one class of parameters."""
    assert step_redis.step_redis_pool.StepRedisPoolParams is StepRedisPoolParams
    assert step_redis.sync.StepRedisPoolParams is StepRedisPoolParams


def test_fields_are_given_by_name():
    """Positional arguments are refused: nobody knows the order of 22 fields."""
    with pytest.raises(TypeError):
        StepRedisPoolParams("localhost")


@pytest.mark.parametrize("name", DEFAULTS)
def test_fields_cannot_be_changed(name):
    """Parameters are immutable, so that one object can serve many pools."""
    params = StepRedisPoolParams()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(params, name, DEFAULTS[name])


def test_equal_values_are_equal_and_hash_alike():
    """Parameters are values."""
    assert StepRedisPoolParams(db=1) == StepRedisPoolParams(db=1) != StepRedisPoolParams(db=2)
    assert len({StepRedisPoolParams(db=1), StepRedisPoolParams(db=1)}) == 1


def test_parameters_can_be_pickled():
    """Parameters can be handed to another process, passwords included."""
    params = StepRedisPoolParams(host="redis.example.com", password=SECRET)
    assert pickle.loads(pickle.dumps(params)) == params


def test_password_none_is_no_password():
    """None, which programs often have for a password that is not set, means none."""
    assert StepRedisPoolParams(password=None).password == ""


def test_a_changed_copy_keeps_the_rest():
    """``attrs.evolve`` is how parameters are changed."""
    params = StepRedisPoolParams(host="redis.example.com", password=SECRET, db=1)
    changed = attrs.evolve(params, db=2)
    assert attrs.asdict(changed) == {**attrs.asdict(params), "db": 2}


def test_a_changed_copy_is_checked_again():
    """A copy cannot hold what the original could not."""
    with pytest.raises(
        ConfigurationError, match="port must be a whole number between 1 and 65535; got 0"
    ):
        attrs.evolve(StepRedisPoolParams(), port=0)


# --- What is accepted and refused -----------------------------------------------------------

NOT_SECONDS = (0, 0.0, -1, True, "5", float("nan"), float("inf"), 1e9, None, [])
NOT_FLAGS = (0, 1, "yes", None)
NOT_TEXT = ("", 5, b"text", True)

GOOD = {
    "host": ("127.0.0.1", "::1", "redis.example.com", "größe.example"),
    "port": (1, 65535),
    "username": (None, "app"),
    "password": ("", "p ä:/?#@%", None),
    "db": (0, 15, 1_000_000),
    "socket_timeout": (1, 0.05, 86_400),
    "socket_connect_timeout": (1, 0.05, 86_400),
    "socket_keep_idle": (1, 32767),
    "socket_keep_alive": (True, False),
    "socket_keep_cnt": (1, 127),
    "socket_keep_interval": (1, 32767),
    "ssl_enable": (True, False),
    "ssl_client_key_file_password": (None, SECRET),
    "ssl_client_cert_file": (None, "client.pem"),
    "ssl_cert_requested": (True, False),
    "ssl_ca_certs_file": (None, "ca.pem"),
    "health_check_interval": (0, 3600),
    "max_connections": (1, 10_000),
    "max_read_connections": (1, 10_000),
    "connection_available_timeout": (None, 1, 0.05),
    "protocol": (2, 3),
}

BAD = {
    "host": (None, *NOT_TEXT),
    "port": (0, -1, 65536, "6379", 6379.0, True, None),
    "username": NOT_TEXT,
    "db": (-1, "0", 0.0, False, None),
    "socket_timeout": NOT_SECONDS,
    "socket_connect_timeout": NOT_SECONDS,
    "socket_keep_idle": (0, -1, 32768, 1.5, "30", True, None),
    "socket_keep_alive": NOT_FLAGS,
    "socket_keep_cnt": (0, -1, 128, 1.5, "3", True, None),
    "socket_keep_interval": (0, -1, 32768, 1.5, "5", True, None),
    "ssl_enable": NOT_FLAGS,
    "ssl_client_key_file": NOT_TEXT,
    "ssl_client_cert_file": NOT_TEXT,
    "ssl_cert_requested": NOT_FLAGS,
    "ssl_ca_certs_file": NOT_TEXT,
    "health_check_interval": (-1, 1.5, "30", True, None),
    "max_connections": (0, -1, 1.5, "20", True, None),
    "max_read_connections": (0, -1, 1.5, "20", True, None),
    "connection_available_timeout": NOT_SECONDS[:-2],
    "protocol": (1, 4, 0, "3", 3.0, True, None),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in GOOD.items() for value in values]
)
def test_accepts(name, value):
    """Every value that can work is taken as it is, the limits included."""
    wanted = "" if (name, value) == ("password", None) else value
    assert getattr(StepRedisPoolParams(**{name: value}), name) == wanted


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_refuses(name, value):
    """What cannot work is refused at once; the error names the field and shows the value."""
    with pytest.raises(ConfigurationError, match=rf"^{name} must be ") as refused:
        StepRedisPoolParams(**{name: value})
    assert str(refused.value).endswith(f"; got {value!r}")


def test_every_field_is_checked():
    """No field takes just anything."""
    assert BAD.keys() | {"password", "ssl_client_key_file_password"} == DEFAULTS.keys()


def test_a_bad_value_is_a_value_error():
    """Code that knows nothing of step_redis catches ValueError."""
    with pytest.raises(ValueError, match="max_connections must be a whole number of at least 1"):
        StepRedisPoolParams(max_connections=0)


def test_a_client_key_needs_its_certificate():
    """A key without a certificate would be ignored by TLS: the error says what is missing."""
    with pytest.raises(ConfigurationError, match="set ssl_client_cert_file"):
        StepRedisPoolParams(ssl_client_key_file="key.pem")
    params = StepRedisPoolParams(ssl_client_key_file="key.pem", ssl_client_cert_file="cert.pem")
    assert params.ssl_client_key_file == "key.pem"


# --- Passwords are never shown --------------------------------------------------------------


@pytest.mark.parametrize("show", [repr, str, "{}".format, "%r".__mod__])
def test_passwords_are_not_in_the_repr(show):
    """Parameters can be printed and logged; everything but the passwords is visible."""
    params = StepRedisPoolParams(
        host="redis.example.com", password=SECRET, ssl_client_key_file_password=f"key-{SECRET}"
    )
    assert SECRET not in show(params)
    assert "host='redis.example.com'" in show(params)


@pytest.mark.parametrize("name", ["password", "ssl_client_key_file_password"])
@pytest.mark.parametrize("value", [SECRET.encode(), [SECRET], {"password": SECRET}, 5])
def test_passwords_of_the_wrong_type_are_not_in_the_error(name, value):
    """Here alone the error names the type and not the value: it may be the password."""
    with pytest.raises(ConfigurationError) as refused:
        StepRedisPoolParams(**{name: value})
    assert str(refused.value) == f"{name} must be a str; got a value of type {type(value).__name__}"
    assert SECRET not in shown(refused.value)


def test_a_bad_field_beside_a_password_does_not_show_it():
    """An error shows the value of its own field and no other."""
    with pytest.raises(ConfigurationError) as refused:
        StepRedisPoolParams(password=SECRET, port=0)
    assert SECRET not in shown(refused.value)


# --- from_url -------------------------------------------------------------------------------

URLS = {
    "redis://": {},
    "redis:///": {},
    "redis://redis.example.com": {"host": "redis.example.com"},
    "redis://redis.example.com/": {"host": "redis.example.com"},
    "redis://redis.example.com:6380/5": {"host": "redis.example.com", "port": 6380, "db": 5},
    "redis://localhost/0": {},
    "redis:///7": {"db": 7},
    "rediss://localhost": {"ssl_enable": True},
    "REDISS://localhost": {"ssl_enable": True},
    "redis://:hunter2@localhost": {"password": SECRET},
    "redis://app:hunter2@localhost": {"username": "app", "password": SECRET},
    "redis://app@localhost": {"username": "app"},
    "redis://app:@localhost": {"username": "app"},
    "redis://us%40er:p%3A%2F%3F%23%5B%5D%40%25%20%C3%A4+@localhost": {
        "username": "us@er",
        "password": "p:/?#[]@% ä+",
    },
    "redis://:p:q@localhost": {"password": "p:q"},
    "redis://[::1]": {"host": "::1"},
    "redis://app:pw@[2001:db8::1]:6380/2": {
        "username": "app",
        "password": "pw",
        "host": "2001:db8::1",
        "port": 6380,
        "db": 2,
    },
    "redis://localhost?socket_timeout=2.5&max_connections=3": {
        "socket_timeout": 2.5,
        "max_connections": 3,
    },
    "redis://localhost?socket_timeout=3": {"socket_timeout": 3},
    "redis://localhost?connection_available_timeout=None": {"connection_available_timeout": None},
    "redis://localhost?connection_available_timeout=0.5": {"connection_available_timeout": 0.5},
    "redis://localhost?ssl_enable=true&ssl_cert_requested=false": {
        "ssl_enable": True,
        "ssl_cert_requested": False,
    },
    "redis://localhost?socket_keep_alive=no": {"socket_keep_alive": False},
    "redis://localhost?protocol=2": {"protocol": 2},
    "rediss://localhost?ssl_ca_certs_file=%2Fetc%2Fca.pem": {
        "ssl_enable": True,
        "ssl_ca_certs_file": "/etc/ca.pem",
    },
    "redis://localhost?password=hunter2": {"password": SECRET},
    "redis://localhost/1?db=2": {"db": 2},
    "redis://localhost?password=": {"password": ""},
}


@pytest.mark.parametrize(("url", "fields"), URLS.items(), ids=URLS)
def test_from_url(url, fields):
    """A URL sets what it says; the rest are the defaults."""
    assert attrs.asdict(StepRedisPoolParams.from_url(url)) == {**DEFAULTS, **fields}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("1", "true", "True", "TRUE", "yes", "on")),
        *((text, False) for text in ("0", "false", "False", "FALSE", "no", "off")),
    ],
)
def test_flags_in_text(text, value):
    """Flags are written in any of the usual ways, in URLs as in variables."""
    assert StepRedisPoolParams.from_url(f"redis://h?ssl_enable={text}").ssl_enable is value
    environ = {"STEP_REDIS_SSL_ENABLE": text}
    assert StepRedisPoolParams.from_env(environ=environ).ssl_enable is value


def test_fields_win_over_the_url():
    """What is given beside the URL is said last."""
    params = StepRedisPoolParams.from_url(
        "rediss://:a@one:1/1?protocol=2", host="two", password="b"
    )
    assert (params.host, params.port, params.password, params.protocol) == ("two", 1, "b", 2)


def test_every_field_can_be_set_in_a_query():
    """The query knows all fields by their names."""
    query = "&".join(
        f"{name}={value}" for name, value in DEFAULTS.items() if value not in (None, "")
    )
    params = StepRedisPoolParams.from_url(f"redis://elsewhere?{query}")
    assert attrs.asdict(params) == DEFAULTS


def test_from_url_of_a_subclass_makes_the_subclass():
    """``from_url`` and ``from_env`` make what they are called on."""

    @attrs.frozen(kw_only=True)
    class Mine(StepRedisPoolParams):
        pass

    assert type(Mine.from_url("redis://")) is Mine
    assert type(Mine.from_env(environ={})) is Mine


@given(username=st.text(min_size=1), password=st.text(), db=st.integers(0, 10**6))
def test_percent_encoded_credentials_come_through(username, password, db):
    """Any user name and password can be written in a URL."""
    url = f"redis://{quote(username, safe='')}:{quote(password, safe='')}@localhost/{db}"
    params = StepRedisPoolParams.from_url(url)
    assert (params.username, params.password, params.db) == (username, password, db)


MALFORMED = {
    "no scheme": "localhost:6379",
    "scheme of another service": "amqp://:hunter2@localhost",
    "Unix socket": "unix:///hunter2.sock",
    "empty": "",
    "port is a word": "redis://localhost:hunter2",
    "port is too big": "redis://localhost:65536",
    "port is zero": "redis://localhost:0",
    "port is negative": "redis://localhost:-1",
    "open bracket": "redis://:hunter2@[::1",
    "database is a word": "redis://localhost/hunter2",
    "database is negative": "redis://localhost/-1",
    "two databases": "redis://localhost/1/2",
    "fragment": "redis://localhost/0#hunter2",
    "password with a slash": "redis://:hun/hunter2@localhost",
    "password with a slash after digits": "redis://:12/hunter2@localhost",
    "password with a hash": "redis://:hun#hunter2@localhost",
    "password with a hash after digits": "redis://:12#hunter2@localhost",
    "password with a question mark": "redis://:hun?hunter2@localhost",
    "password with a question mark after digits": "redis://:12?hunter2@localhost",
    "password with a question mark after a user": "redis://app:12?hunter2@localhost/0",
    "password that looks like a query": "redis://:12?port=hunter2@localhost",
    "password that looks like a flag": "redis://:12?ssl_enable=hunter2@localhost",
    "password with a bracket": "redis://:hunter2[@localhost",
}


@pytest.mark.parametrize("url", MALFORMED.values(), ids=MALFORMED)
def test_malformed_urls_are_refused_and_not_shown(url):
    """A password that is not percent-encoded ends up anywhere, so that no part is shown."""
    with pytest.raises(ConfigurationError) as refused:
        StepRedisPoolParams.from_url(url)
    assert SECRET not in shown(refused.value)


@pytest.mark.parametrize("special", "/?#[]@:% +\\")
@pytest.mark.parametrize("before", ["", "12", "abc"])
def test_special_characters_in_a_password_never_show_it(before, special):
    """A password is read, or refused without a trace of it, whatever characters it has."""
    try:
        params = StepRedisPoolParams.from_url(f"redis://:{before}{special}{SECRET}@localhost")
    except ConfigurationError as error:
        text = shown(error)
    else:
        text = repr(params)
    assert SECRET not in text


def test_an_unknown_field_in_a_query_is_named():
    """A slip in the name of a field is no silent default."""
    with pytest.raises(ConfigurationError, match="query sets 'socket_timeuot', which is no field"):
        StepRedisPoolParams.from_url("redis://localhost?socket_timeuot=3")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("protocol=three", "protocol must be a number; got 'three'"),
        ("protocol=4", "protocol must be 2 or 3 (the version of RESP); got 4"),
        ("socket_timeout=", "socket_timeout must be a number; got ''"),
        ("socket_timeout=none", "socket_timeout must be a number; got 'none'"),
        ("socket_timeout=nan", "socket_timeout must be a positive number of seconds; got nan"),
        ("ssl_enable=maybe", "ssl_enable must be true or false; got 'maybe'"),
        ("ssl_enable=", "ssl_enable must be true or false; got ''"),
        ("username=", "username must be a text that is not empty; got ''"),
        ("max_connections=-1", "max_connections must be a whole number of at least 1; got -1"),
    ],
)
def test_a_bad_value_in_a_query_names_its_field(query, text):
    """Values of a query are checked like those of the constructor."""
    with pytest.raises(ConfigurationError) as refused:
        StepRedisPoolParams.from_url(f"redis://:{SECRET}@localhost?{query}")
    assert str(refused.value) == text
    assert SECRET not in shown(refused.value)


@pytest.mark.parametrize("url", [None, b"redis://localhost", 5], ids=repr)
def test_a_url_is_a_str(url):
    """Something else than a str is a configuration error too."""
    with pytest.raises(ConfigurationError):
        StepRedisPoolParams.from_url(url)


# --- from_env -------------------------------------------------------------------------------


def test_from_env_without_variables_is_the_default():
    """Where nothing is set, it is a server on this machine."""
    assert StepRedisPoolParams.from_env(environ={}) == StepRedisPoolParams()


def test_from_env_reads_the_environment(monkeypatch):
    """Without a mapping the process's own variables are read."""
    monkeypatch.setenv("STEP_REDIS_HOST", "redis.example.com")
    monkeypatch.setenv("STEP_REDIS_PORT", "6380")
    params = StepRedisPoolParams.from_env()
    assert (params.host, params.port) == ("redis.example.com", 6380)


def test_from_env_reads_every_field():
    """Each field has its variable."""
    fields = {
        "host": "redis.example.com",
        "port": 6380,
        "username": "app",
        "password": SECRET,
        "db": 3,
        "socket_timeout": 1.5,
        "socket_connect_timeout": 2,
        "socket_keep_idle": 10,
        "socket_keep_alive": False,
        "socket_keep_cnt": 4,
        "socket_keep_interval": 6,
        "ssl_enable": True,
        "ssl_client_key_file": "key.pem",
        "ssl_client_key_file_password": f"key-{SECRET}",
        "ssl_client_cert_file": "cert.pem",
        "ssl_cert_requested": False,
        "ssl_ca_certs_file": "ca.pem",
        "health_check_interval": 0,
        "max_connections": 5,
        "max_read_connections": 7,
        "connection_available_timeout": 0.5,
        "protocol": 2,
    }
    assert fields.keys() == DEFAULTS.keys()
    environ = {f"STEP_REDIS_{name.upper()}": str(value) for name, value in fields.items()}
    assert attrs.asdict(StepRedisPoolParams.from_env(environ=environ)) == fields


def test_single_variables_win_over_the_url():
    """A deployment has one URL and changes single fields of it."""
    environ = {
        "STEP_REDIS_URL": "rediss://app:secret@one:6380/1?max_connections=3",
        "STEP_REDIS_HOST": "two",
        "STEP_REDIS_PASSWORD": SECRET,
        "STEP_REDIS_SSL_ENABLE": "false",
    }
    assert StepRedisPoolParams.from_env(environ=environ) == StepRedisPoolParams(
        host="two", port=6380, username="app", password=SECRET, db=1, max_connections=3
    )


def test_a_prefix_of_ones_own():
    """Two servers have two prefixes; other variables are left alone."""
    environ = {
        "ORDERS_REDIS_HOST": "orders",
        "AUDIT_REDIS_HOST": "audit",
        "STEP_REDIS_HOST": "other",
        "HOST": "machine",
    }
    assert StepRedisPoolParams.from_env("ORDERS_REDIS_", environ).host == "orders"
    assert StepRedisPoolParams.from_env("AUDIT_REDIS_", environ).host == "audit"
    assert StepRedisPoolParams.from_env("NOBODYS_", environ).host == "localhost"


@pytest.mark.parametrize("name", ["URL", *(name.upper() for name in DEFAULTS)])
def test_empty_variables_are_not_set(name):
    """An empty variable, as deployment tools write it, leaves the default."""
    params = StepRedisPoolParams.from_env(environ={f"STEP_REDIS_{name}": ""})
    assert params == StepRedisPoolParams()


def test_variables_that_name_no_field_are_left_alone():
    """The prefix may be shared with other settings."""
    environ = {"STEP_REDIS_TEST_URL": "x", "STEP_REDIS_LOG": "debug", "step_redis_port": "1"}
    assert StepRedisPoolParams.from_env(environ=environ) == StepRedisPoolParams()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "redis"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "6379.5"),
        ("DB", "-1"),
        ("SOCKET_TIMEOUT", "soon"),
        ("SOCKET_TIMEOUT", "-3"),
        ("SSL_ENABLE", "maybe"),
        ("CONNECTION_AVAILABLE_TIMEOUT", "never"),
        ("PROTOCOL", "4"),
        ("MAX_CONNECTIONS", "many"),
    ],
)
def test_a_bad_variable_is_named(name, text):
    """The error names the variable and its value, which is what has to be corrected."""
    with pytest.raises(ConfigurationError) as refused:
        StepRedisPoolParams.from_env("MY_", {f"MY_{name}": text})
    assert f"MY_{name} must be " in str(refused.value)
    assert text in str(refused.value)


def test_a_bad_variable_does_not_show_passwords():
    """Neither the URL nor a password is in the error of another variable."""
    environ = {
        "STEP_REDIS_URL": f"redis://:{SECRET}@localhost",
        "STEP_REDIS_PASSWORD": SECRET,
        "STEP_REDIS_PORT": "x",
    }
    with pytest.raises(ConfigurationError) as refused:
        StepRedisPoolParams.from_env(environ=environ)
    assert SECRET not in shown(refused.value)


def test_a_bad_url_in_a_variable_is_not_shown():
    """What is wrong with the URL is told without it."""
    with pytest.raises(ConfigurationError, match="percent-encode") as refused:
        StepRedisPoolParams.from_env(environ={"STEP_REDIS_URL": f"redis://:a/{SECRET}@localhost"})
    assert SECRET not in shown(refused.value)


# --- What redis-py is told ------------------------------------------------------------------


def test_redis_py_gets_the_parameters():
    """Each parameter reaches redis-py under redis-py's name."""
    params = StepRedisPoolParams(
        host="redis.example.com",
        port=6380,
        username="app",
        password=SECRET,
        db=2,
        socket_timeout=1,
        socket_connect_timeout=2,
        socket_keep_alive=False,
        health_check_interval=9,
        max_connections=4,
        connection_available_timeout=None,
        protocol=2,
    )
    told = pool_options(params)
    del told["maint_notifications_config"], told["socket_keepalive_options"]
    assert told == {
        "max_connections": 4,
        "timeout": None,
        "host": "redis.example.com",
        "port": 6380,
        "username": "app",
        "password": SECRET,
        "db": 2,
        "socket_timeout": 1,
        "socket_connect_timeout": 2,
        "socket_keepalive": False,
        "health_check_interval": 9,
        "protocol": 2,
    }


def test_an_empty_password_is_none_for_redis_py():
    """Without a password nothing is authenticated."""
    assert pool_options(StepRedisPoolParams())["password"] is None


def test_tls_reaches_redis_py():
    """TLS verifies certificate and host name; client files and authorities are passed on."""
    params = StepRedisPoolParams(
        ssl_enable=True,
        ssl_client_key_file="key.pem",
        ssl_client_key_file_password=SECRET,
        ssl_client_cert_file="cert.pem",
        ssl_ca_certs_file="ca.pem",
    )
    told = {name: value for name, value in pool_options(params).items() if name.startswith("ssl_")}
    assert told == {
        "ssl_keyfile": "key.pem",
        "ssl_password": SECRET,
        "ssl_certfile": "cert.pem",
        "ssl_ca_certs": "ca.pem",
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
    }


def test_tls_without_verification_checks_nothing():
    """``ssl_cert_requested=False`` turns off both checks; redis-py refuses half of it."""
    told = pool_options(StepRedisPoolParams(ssl_enable=True, ssl_cert_requested=False))
    assert (told["ssl_cert_reqs"], told["ssl_check_hostname"]) == ("none", False)


def test_without_tls_nothing_of_it_is_passed_on():
    """A plain connection would refuse TLS arguments."""
    params = StepRedisPoolParams(ssl_client_cert_file="cert.pem")
    assert not [name for name in pool_options(params) if name.startswith("ssl_")]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a socket option of Linux")
def test_keepalive_bounds_how_long_a_dead_peer_goes_unnoticed():
    """Probes and data that is not acknowledged give up after the same time."""
    params = StepRedisPoolParams(socket_keep_idle=10, socket_keep_interval=2, socket_keep_cnt=4)
    assert pool_options(params)["socket_keepalive_options"] == {
        socket.TCP_KEEPIDLE: 10,
        socket.TCP_KEEPINTVL: 2,
        socket.TCP_KEEPCNT: 4,
        socket.TCP_USER_TIMEOUT: 18_000,
    }


@pytest.mark.parametrize("idle", [1, 32767])
@pytest.mark.parametrize("interval", [1, 32767])
@pytest.mark.parametrize("probes", [1, 127])
def test_every_accepted_keepalive_can_be_set(idle, interval, probes):
    """What the parameters accept, the operating system takes."""
    params = StepRedisPoolParams(
        socket_keep_idle=idle, socket_keep_interval=interval, socket_keep_cnt=probes
    )
    with socket.socket() as plain:
        for option, value in pool_options(params)["socket_keepalive_options"].items():
            plain.setsockopt(socket.IPPROTO_TCP, option, value)


@pytest.mark.parametrize("protocol", [2, 3])
def test_maintenance_notifications_are_off(protocol):
    """They would turn off redis-py's check for replies that are left in a connection."""
    options = pool_options(StepRedisPoolParams(protocol=protocol))
    assert options["maint_notifications_config"].enabled is False
    assert reader_options(options, 5, None)["maint_notifications_config"].enabled is False


def test_readers_connect_as_commands_do():
    """The pool for reads differs in its size and in how long it waits, and in nothing else."""
    options = pool_options(StepRedisPoolParams(host="redis.example.com", password=SECRET, db=2))
    readers = reader_options(options, 7, 1.5)
    assert (readers["max_connections"], readers["timeout"]) == (7, 1.5)
    sizes = {"max_connections", "timeout", "maint_notifications_config"}
    assert {name: readers[name] for name in readers.keys() - sizes} == {
        name: options[name] for name in options.keys() - sizes
    }


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"host": "redis.example.com", "port": 6380}, "redis.example.com:6380"),
        ({"host": "redis.example.com"}, "redis.example.com:6379"),
        ({"path": "/run/redis.sock"}, "/run/redis.sock"),
        ({}, "localhost:6379"),
        ({"host": "::1", "port": 6380}, "[::1]:6380"),
    ],
)
def test_a_target_is_named_as_people_write_it(options, name):
    """Errors name where a pool leads to, also a redis-py pool of the user's own."""
    assert Target.of(options).name == name


@pytest.mark.parametrize(
    ("options", "socket_seconds", "connect_seconds"),
    [
        ({}, 5, 5),
        ({"socket_timeout": 2}, 2, 2),
        ({"socket_connect_timeout": 3}, 5, 3),
        ({"socket_timeout": 2, "socket_connect_timeout": 3}, 2, 3),
        ({"socket_timeout": None, "socket_connect_timeout": None}, 5, 5),
    ],
)
def test_a_target_always_has_time_limits(options, socket_seconds, connect_seconds):
    """A redis-py pool without timeouts waits five seconds, not for ever."""
    target = Target.of(options)
    assert (target.socket_seconds, target.connect_seconds) == (socket_seconds, connect_seconds)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_target_knows_whether_it_speaks_tls(enabled):
    """Hints in errors depend on it."""
    assert Target.of(pool_options(StepRedisPoolParams(ssl_enable=enabled))).tls is enabled


def test_a_target_knows_its_secrets_and_does_not_show_them():
    """Secrets are known so that errors can be cleaned of them."""
    target = Target.of({"host": "h", "password": SECRET, "ssl_password": f"key-{SECRET}"})
    assert set(target.secrets) == {SECRET, f"key-{SECRET}"}
    assert SECRET not in repr(target)
    assert Target.of({"host": "h", "password": None}).secrets == ()


# --- TLS files ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory):
    """Files of an authority, of a client, and of a key that belongs to neither."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("client.example")
    other = authority.issue_cert("other.example")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    other.private_key_pem.write_to_path(folder / "other.pem")
    (folder / "text.pem").write_text("no PEM at all")
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    (folder / "encrypted.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(SECRET.encode()),
        )
    )
    return {path.stem: str(path) for path in folder.iterdir()} | {"missing": str(folder / "none")}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ssl_ca_certs_file": "ca"},
        {"ssl_client_cert_file": "cert", "ssl_client_key_file": "key"},
        {"ssl_client_cert_file": "both"},
        {
            "ssl_client_cert_file": "cert",
            "ssl_client_key_file": "encrypted",
            "ssl_client_key_file_password": SECRET,
        },
    ],
    ids=["none", "authority", "certificate and key", "both in one", "encrypted key"],
)
def test_good_tls_files_are_accepted(tls_files, fields):
    """Files that TLS can use pass the check."""
    files = {name: tls_files.get(value, value) for name, value in fields.items()}
    check_tls_files(StepRedisPoolParams(ssl_enable=True, **files))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"ssl_ca_certs_file": "missing"}, "ssl_ca_certs_file: cannot read"),
        ({"ssl_ca_certs_file": "text"}, "ssl_ca_certs_file: .* holds no PEM certificates"),
        ({"ssl_client_cert_file": "missing"}, "ssl_client_cert_file: cannot read"),
        (
            {"ssl_client_cert_file": "cert", "ssl_client_key_file": "missing"},
            "ssl_client_key_file: cannot read",
        ),
        (
            {"ssl_client_cert_file": "cert", "ssl_client_key_file": "other"},
            "ssl_client_key_file: .* does not belong to",
        ),
        (
            {"ssl_client_cert_file": "cert", "ssl_client_key_file": "text"},
            "ssl_client_key_file: .* no PEM key",
        ),
        (
            {"ssl_client_cert_file": "cert", "ssl_client_key_file": "encrypted"},
            "ssl_client_key_file: .* password is missing or wrong",
        ),
        (
            {
                "ssl_client_cert_file": "cert",
                "ssl_client_key_file": "encrypted",
                "ssl_client_key_file_password": f"not-{SECRET}",
            },
            "ssl_client_key_file: .* password is missing or wrong",
        ),
        (
            {"ssl_client_cert_file": "text", "ssl_client_key_file": "key"},
            "ssl_client_cert_file: ",
        ),
    ],
)
def test_bad_tls_files_are_named(tls_files, fields, text):
    """The error names the parameter and the file, never a password."""
    files = {name: tls_files.get(value, value) for name, value in fields.items()}
    with pytest.raises(ConfigurationError, match=text) as refused:
        check_tls_files(StepRedisPoolParams(ssl_enable=True, **files))
    assert SECRET not in shown(refused.value)


def test_checking_tls_files_is_silent(tls_files, caplog):
    """The check itself logs nothing."""
    with caplog.at_level(logging.DEBUG):
        check_tls_files(StepRedisPoolParams(ssl_ca_certs_file=tls_files["ca"]))
    assert not caplog.records
