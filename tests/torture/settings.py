"""What all processes of the torture test agree on: streams, consumers, options, the lease."""

import attrs

GROUP = "torture"
RECORDER = "recorder"
"""The group that records the streams, and its consumer."""

STREAMS = ("orders", "refunds")
LEASE_SECONDS = 2.0
MAX_DELIVERIES = 3
RETRY_DELAYS = (0.05, 0.2, 0.5)
GRACE_SECONDS = 3.0

# How many entries a stream keeps; producers are less strict than who trims beside them.
KEPT = 40
KEPT_BY_PRODUCERS = 100

# For how long publishing is repeated: longer than any outage that is planned; shorter than most.
PATIENT_SECONDS, HASTY_SECONDS = 30, 0.2

# Clocks of two processes are compared that read the same one; the server's has whole milliseconds.
CLOCK_TOLERANCE = 0.02


def forward_stream(stream: str) -> str:
    """Where handlers forward messages of a stream to."""
    return f"{{{stream}}}.paid"


@attrs.frozen
class Slot:
    """How one of the consumer processes works; it is restarted with the same options."""

    flavour: str
    concurrency: int
    prefetch: int
    handler_timeout_seconds: float | None
    socket_timeout: float
    proxy: int | None
    """Through which proxy it reaches the server; None: through none."""


SLOTS = (
    Slot("asyncio", 4, 40, 1.5, 5.0, 0),
    Slot("threads", 3, 10, 1.5, 5.0, 0),
    Slot("asyncio", 1, 20, None, 5.0, None),
    Slot("threads", 1, 20, 1.5, 2.0, None),
    Slot("asyncio", 8, 100, 1.5, 2.0, 1),
    Slot("threads", 4, 4, 1.5, 5.0, 1),
)

PRODUCERS = ("asyncio", "threads", "trimmer")
"""What the processes beside the consumers do: publish in one of the flavours, or trim."""

PROXIES = 1 + max(slot.proxy for slot in SLOTS if slot.proxy is not None)


@attrs.frozen
class Order:
    """What a run is to do."""

    seed: int
    seconds: float
    """How long things go wrong, all in all; getting quiet and stopping come on top."""
    plant: str | None = None
    """The bug to plant, if any."""
    round_seconds: float = 60
    """After so long everything starts anew, with an empty server."""
    cycle_seconds: float = 20
    """After so long everything is mended and has to get quiet, with the same consumers."""
