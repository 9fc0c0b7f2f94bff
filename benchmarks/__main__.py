"""Run the benchmarks: `python -m benchmarks --quick`."""

import argparse
import time
from fnmatch import fnmatch

from .lines import LINES
from .measure import FULL, QUICK, Bench
from .payloads import SMALL
from .registry import load
from .server import started_server
from .table import table


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--only", action="append", metavar="NAME", help="lines, as in run-*")
    parser.add_argument("--loop", default="asyncio", choices=("asyncio", "uvloop"))
    options = parser.parse_args()
    wanted = options.only or ["*"]
    for missing in load():
        print(f"missing: {missing}")
    started = time.monotonic()
    rows = []
    with started_server() as server:
        bench = Bench(server, QUICK if options.quick else FULL, options.loop)
        print(server.describe(), bench.effort.name, options.loop)
        for line in LINES:
            if any(fnmatch(line.name, pattern) for pattern in wanted):
                rows.extend(line.rows(bench, SMALL))
                print(f"{time.monotonic() - started:5.1f} s {line.name}", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
