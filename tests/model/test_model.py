"""The scripts and `Member` in a randomized simulation, on a real server by a virtual clock.

Consumers of two groups read, settle, park, dead-letter, redrive and leave while requests
and replies get lost or late and servers and other programs do their worst (`faults.py`); after each
step the oracle judges what happened (`oracle.py`). The same seed and policy make the same run.

By default a few seeds run. For more::

    STEP_REDIS_MODEL_SEEDS=0:100 STEP_REDIS_TEST_SERVER=/path/to/redis-server pytest tests/model -s

``-s`` shows what happened how many times. Single runs: ``STEP_REDIS_MODEL_SEEDS=22:23``.
"""

import os
import sys
from collections import Counter

import pytest
from redis import Connection

from model.evidence import InvariantError
from model.planted import BUGS, NO_RENEWAL, Bug
from model.simulation import simulate
from model.world import World

SEEDS = range(*map(int, os.environ.get("STEP_REDIS_MODEL_SEEDS", "0:5").split(":")))
SEEDS_FOR_BUGS = range(1000, 1060)


@pytest.fixture
def connection(private_server):
    """A connection to a server that nobody else uses."""
    server = private_server()
    connection = Connection(host=server.host, port=server.port, protocol=2, socket_timeout=20)
    yield connection
    connection.disconnect()


@pytest.mark.parametrize("policy", ["replay", "resume"])
def test_nothing_is_lost(connection, policy):
    """Whatever goes wrong, the invariants hold, and in the end all is settled."""
    happened = Counter()
    for seed in SEEDS:
        happened += simulate(connection, seed, policy).counts
    report(f"{len(SEEDS)} runs, {policy}", happened)
    for rare in ("moved", "concluded settled", "fenced ack", "zombie park", "fault: fail_over"):
        assert happened[rare], f"no run had {rare!r}, so the test shows less than it should"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_oracle_finds(connection, bug):
    """Each rule is needed: without it some run goes wrong."""
    for tried, seed in enumerate(SEEDS_FOR_BUGS, 1):
        try:
            with_bug(connection, bug, seed)
        except InvariantError as error:
            sys.stdout.write(f"{bug.name}: run {tried}: {str(error).splitlines()[0][:200]}\n")
            return
    pytest.fail(f"{len(SEEDS_FOR_BUGS)} runs did not show that {bug.name}")


def test_renewal_is_not_needed_for_safety(connection):
    """A consumer that never renews its lease loses it early, and no message."""
    for seed in SEEDS_FOR_BUGS[:2]:
        assert with_bug(connection, NO_RENEWAL, seed).counts["lease ended"]


def with_bug(connection: Connection, bug: Bug, seed: int) -> World:
    with bug.in_member():
        return simulate(connection, seed, ("replay", "resume")[seed % 2], planted=bug.texts)


def report(title: str, happened: Counter[str]) -> None:
    lines = [f"  {count:8} {event}" for event, count in sorted(happened.items())]
    sys.stdout.write("\n".join([f"\n{title}:", *lines, ""]))
