"""The torture test: `python tests/torture/run.py --seconds 60 --server /usr/bin/redis-server`.

Consumers, producers and the server are killed, frozen and cut off at random, and every message must
be settled exactly once all the same. Exits with 1 if it was not.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from servers import BinarySource, PrivateServer
from torture.plants import PLANTS
from torture.settings import Order
from torture.torment import Result, Round

_DURABLE = ("--appendonly", "yes", "--appendfsync", "always")

# So small that streams have several nodes, which may go as a whole.
_NODES = ("--stream-node-max-entries", "10")

_SHOWN = 10

# Figures of which the highest counts, not the sum.
_MOST = ("highest delivery count", "longest stream")


def torture(
    start_server: Callable[..., PrivateServer], order: Order, *, keep: Path | None = None
) -> Result:
    """Torture in rounds, each with a server of its own, until something is wrong.

    Args:
        start_server: Starts a server with options.
        order: What to do.
        keep: Where journals and logs are kept; None keeps none.
    """
    whole = Result([], Counter(), Counter(), 0)
    left, seed = order.seconds, order.seed
    while left > 0 and not whole.violations:
        seconds = min(left, order.round_seconds)
        folder = Path(tempfile.mkdtemp(prefix="torture-", dir=keep))
        server = start_server(*_DURABLE, *_NODES)
        try:
            one = Round(server, attrs.evolve(order, seed=seed, seconds=seconds), folder).run()
        finally:
            server.stop()
            if keep is None:
                shutil.rmtree(folder, ignore_errors=True)
        figures = whole.figures + one.figures
        for name in _MOST:
            figures[name] = max(one.figures[name], whole.figures[name])
        faults, seconds_in_all = whole.faults + one.faults, whole.seconds + one.seconds
        whole = Result(one.violations, figures, faults, seconds_in_all)
        left, seed = left - seconds, seed + 1
    return whole


def report(order: Order, result: Result) -> str:
    """Describe what came of it."""
    lines = [f"seed {order.seed}, {order.seconds:g} s of faults, {result.seconds:.1f} s in all"]
    lines += [f"  planted: {order.plant}"] if order.plant else []
    lines += ["  " + ", ".join(f"{name} {count}" for name, count in sorted(result.figures.items()))]
    faults = sorted(result.faults.items())
    lines += [f"  {result.faults.total()} faults: {', '.join(f'{k} {n}' for k, n in faults)}"]
    lines += [f"VIOLATION {violation}" for violation in result.violations[:_SHOWN]]
    more = len(result.violations) - _SHOWN
    lines += [f"and {more} more"] if more > 0 else []
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = os.environ.get("STEP_REDIS_TEST_SERVER") or shutil.which("redis-server")
    parser.add_argument("--server", default=default, help="the server's program")
    parser.add_argument("--seconds", type=float, default=60, help="how long things go wrong")
    parser.add_argument("--seed", type=int, help="from which all choices follow")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to be found")
    parser.add_argument("--keep", type=Path, help="a folder to keep journals and logs in")
    options = parser.parse_args()
    if options.server is None:
        parser.error("there is no redis-server on PATH: name one with --server")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    order = Order(seed, options.seconds, options.plant)
    source = BinarySource(options.server, options.server)
    result = torture(source.start, order, keep=options.keep)
    sys.stdout.write(f"{source.info}\n{report(order, result)}\n")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
