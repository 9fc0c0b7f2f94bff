"""What goes wrong when: a plan of faults that follows from a seed."""

from collections.abc import Sequence
from random import Random

import attrs

from step_redis.scripts import script
from torture.settings import LEASE_SECONDS, PRODUCERS, PROXIES, SLOTS

_LONG = (1.2 * LEASE_SECONDS, 1.8 * LEASE_SECONDS)

# How often each fault is planned, of so many; how long it lasts, or until it is made good. Some of
# those that are shorter than a lease end just when it does.
_KINDS: dict[str, tuple[int, tuple[float, float]]] = {
    "worker-kill": (18, (0.1, 1.5)),
    "worker-terminate": (8, (0.1, 1.5)),
    "worker-freeze": (6, (0.3, 1.2 * LEASE_SECONDS)),
    "worker-freeze-long": (8, _LONG),
    "producer-kill": (6, (0.1, 1.0)),
    "producer-freeze": (3, (0.3, 1.2 * LEASE_SECONDS)),
    "server-kill": (4, (0.1, 1.0)),
    "server-freeze": (3, (0.2, 1.2 * LEASE_SECONDS)),
    "server-freeze-long": (6, _LONG),
    "server-pause": (4, (0.2, 1.0)),
    "connections-kill": (6, (0, 0)),
    "scripts-flush": (4, (0, 0)),
    "redrive": (6, (0, 0)),
    "proxy-drop-request": (8, (0, 0)),
    "proxy-drop-reply": (14, (0, 0)),
    "proxy-cut-reply": (8, (0, 0)),
    "proxy-hold-replies": (6, (0.2, 1.5 * LEASE_SECONDS)),
    "proxy-hold-closes": (6, (0.2, LEASE_SECONDS)),
    "proxy-cut": (5, (0, 0)),
    "proxy-refuse": (3, (0.2, LEASE_SECONDS)),
}

_TARGETS = {"worker": len(SLOTS), "producer": len(PRODUCERS), "proxy": PROXIES}

_OF_SERVER = ("server", "connections", "scripts", "redrive")

_SURE = ("server-freeze-long", "server-kill", "worker-kill")
"""These come in any case, the rest at random."""

# Seconds between two faults, on average.
_PAUSE_SECONDS = 0.5

_SCRIPTS = (
    *("join", "poll", "ack", "park", "copy", "leave"),
    *("publish", "publish_once", "publish_due", "cancel", "trim"),
)


@attrs.frozen
class Fault:
    """Something that goes wrong."""

    at: float
    """Seconds from the beginning."""
    kind: str
    seconds: float = 0
    """How long it lasts, or until it is made good."""
    target: int = 0
    """Which slot, which producer, or which proxy."""
    matching: bytes = b""
    """Which requests, for a proxy: those that contain it."""
    number: int = 1
    """How many requests, bytes or dead letters."""


def plan(rng: Random, seconds: float, provoking: Sequence[str] = ()) -> list[Fault]:
    """Return the faults of so many seconds; the server has only one at a time.

    ``provoking`` are some that come in any case, to show a bug that is planted.
    """
    faults: list[Fault] = []
    at, server_is_back_at = rng.uniform(0.5, 1.5), 0.0
    sure = [*_SURE, *provoking]
    rng.shuffle(sure)
    every = seconds / (len(sure) + 1)
    while at < seconds:
        [kind] = rng.choices(list(_KINDS), [weight for weight, _ in _KINDS.values()])
        if sure and at > seconds - len(sure) * every and at > server_is_back_at:
            kind = sure.pop()
        fault = _fault(rng, at, kind)
        if not kind.startswith(_OF_SERVER):
            faults.append(fault)
        elif at > server_is_back_at:
            faults.append(fault)
            server_is_back_at = at + fault.seconds + LEASE_SECONDS / 2
        at += rng.expovariate(1 / _PAUSE_SECONDS)
    return faults


def _fault(rng: Random, at: float, kind: str) -> Fault:
    _, (shortest, longest) = _KINDS[kind]
    return Fault(
        at,
        kind,
        seconds=rng.uniform(shortest, longest),
        target=rng.randrange(_TARGETS.get(kind.partition("-")[0], 1)),
        matching=_requests(rng),
        number=rng.randint(1, 40) if kind in ("proxy-cut-reply", "redrive") else rng.randint(1, 3),
    )


def _requests(rng: Random) -> bytes:
    """Choose which requests are hit: a script's, reads, or all."""
    chosen = rng.choice([*_SCRIPTS, "XREADGROUP", ""])
    return (script(chosen).sha if chosen in _SCRIPTS else chosen).encode()
