"""Nothing is lost, nothing is there twice or settled twice, whatever is killed or cut off.

`STEP_REDIS_TORTURE_SECONDS` says for how long things go wrong; `STEP_REDIS_TORTURE_SEED` repeats
the choices of a run; with `STEP_REDIS_TORTURE_PLANTS=1`, bugs are planted that have to be found.
"""

import os
import random
import sys

import pytest

from torture.plants import PLANTS
from torture.run import report, torture
from torture.settings import Order

_SECONDS = float(os.environ.get("STEP_REDIS_TORTURE_SECONDS", "8"))
_PLANTED_SECONDS = 120

_SIGNS = {
    "fence": ["settled without a lease"],
    "renewal": ["lost its lease", "delivered to two at once"],
    "early-ack": ["before it was handled"],
    "early-takeover": ["lost its lease", "delivered to two at once"],
    "dead-without-ack": ["delivered again after it was settled", "settled more than once"],
    "number-anew": ["is there 2 times", "publishing failed without a doubt"],
    "doubt-denied": ["publishing failed without a doubt"],
    "batch-denied": ["does not say what may be written", "publishing failed without a doubt"],
    "key-forgotten": ["published under one key as"],
    "due-lost": ["and it is not there"],
    "due-twice": ["times:"],
    "due-early": ["before it was due"],
    "cancelled-due": ["cancelled, and it is there"],
    "trim-pending": ["has not acknowledged it"],
    "trim-pending-in-bulk": ["has not acknowledged it"],
    "trim-unread": ["and it is not there", "behind some that are not", "entries were added to"],
}
"""By what each planted bug is found."""


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("STEP_REDIS_TORTURE_SEED", random.randrange(10**6)))


def test_nothing_is_lost(private_server, seed):
    """Each message is published once and settled once, in effect, through all faults."""
    order = Order(seed, _SECONDS)
    result = torture(private_server, order)
    said = report(order, result)
    sys.stdout.write(said)
    assert not result.violations, said


@pytest.mark.skipif(
    "STEP_REDIS_TORTURE_PLANTS" not in os.environ,
    reason="takes minutes: STEP_REDIS_TORTURE_PLANTS=1 lets it run",
)
@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_planted_bug_is_found(private_server, seed, plant):
    """Each bug that is planted in consumers and producers is found."""
    order = Order(seed, _PLANTED_SECONDS, plant)
    result = torture(private_server, order)
    signs = _SIGNS[plant]
    found = [sign for sign in signs for violation in result.violations if sign in violation]
    assert found, report(order, result)
