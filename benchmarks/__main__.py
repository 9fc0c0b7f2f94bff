"""Measure step_redis beside what a user would pick instead, and print goals beside results."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .flatness import flatness
from .latency import latency
from .limit import limit
from .lines import LINES, on_uvloop
from .measure import FULL, QUICK, Bench
from .memory import memory
from .payloads import FIELDS, KILOBYTE, SMALL
from .plot import plot
from .registry import load
from .rows import Row
from .server import started_server
from .table import table

_PACKAGES = (
    *("redis", "hiredis", "valkey-glide", "valkey-glide-sync", "coredis", "faststream"),
    *("taskiq", "taskiq-redis", "uvloop"),
)
_OTHERS: dict[str, Callable[[Bench], Iterable[Row]]] = {
    "latency": latency,
    "memory": memory,
    "flatness": flatness,
    "uvloop": on_uvloop,
    "limit": limit,
}
_LEFT_OUT = (
    "left out in the quick run: payloads of 1 KB and of 20 fields, peers without a goal, uvloop,"
    " the blocking flavour of latency and memory, the blocking consumer against FastStream and\n"
    "taskiq-redis, 16 workers against valkey-glide; flatness goes up to 100,000"
)


def main() -> None:
    """Measure, print the table, write what was asked for."""
    options = _options()
    missing = load()
    for one in missing:
        print(f"left out, not installed: {one}")
    started = time.monotonic()
    rows: list[Row] = []
    with started_server() as server:
        bench = Bench(server, QUICK if options.quick else FULL, options.loop)
        run = _about(server.describe(), bench, missing)
        print(", ".join(f"{name} {value}" for name, value in run.items() if value))
        for name, measured in _all(bench):
            if any(fnmatch(name, pattern) for pattern in options.only or ["*"]):
                rows.extend(measured())
                print(f"{time.monotonic() - started:6.1f} s  {name}", flush=True)
    print(table(rows))
    if options.quick:
        print(f"\n{_LEFT_OUT}")
    if options.json:
        results = {"run": run, "rows": [row.as_json() for row in rows]}
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if options.plot:
        plot(rows, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="take less than a minute")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="a line, or several as in 'run-*'"
    )
    parser.add_argument("--loop", default="asyncio", choices=("asyncio", "uvloop"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them, as SVG or PNG")
    return parser.parse_args()


def _all(bench: Bench) -> Iterator[tuple[str, Callable[[], Iterable[Row]]]]:
    """Give each line's name and what measures it."""
    is_quick = bench.effort is QUICK
    for line in LINES:
        yield line.name, partial(line.rows, bench, SMALL, shortened=is_quick)
    for name, other in _OTHERS.items():
        if not (is_quick and name == "uvloop"):
            yield name, partial(other, bench)
    if not is_quick:
        for payload in (KILOBYTE, FIELDS):
            for line in LINES:
                yield line.name, partial(line.rows, bench, payload, shortened=True)


def _about(server: str, bench: Bench, missing: list[str]) -> dict[str, Any]:
    about = {
        "server": server,
        "effort": bench.effort.name,
        "loop": bench.loop,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "missing": missing,
    }
    for package in _PACKAGES:
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            continue
    return about


if __name__ == "__main__":
    main()
