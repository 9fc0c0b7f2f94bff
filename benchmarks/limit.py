"""What the server itself can take: redis-benchmark, where it is found."""

import re
import subprocess
from collections.abc import Iterator

from .measure import Bench
from .rows import Row, rate
from .server import benchmark_program

_REQUESTS = "200000"
_PIPELINES = (1, 64, 256)


def limit(bench: Bench) -> Iterator[Row]:
    """Show how fast redis-benchmark adds entries, at several lengths of its pipeline."""
    program = benchmark_program(bench.server)
    for length in _PIPELINES:
        row = Row(line="limit", what=f"XADD, pipeline of {length}", peer="redis-benchmark")
        if program is None:
            yield Row(line=row.line, what=row.what, peer=row.peer, note="not found")
            continue
        with bench.server.client() as looker:
            looker.flushall()
        requests = _REQUESTS if length > 1 else "20000"
        words = ["-h", bench.server.host, "-p", str(bench.server.port), "-c", "1"]
        words += ["-n", requests, "-P", str(length), "-q"]
        words += ["XADD", "bench", "*", "payload", "x" * 100, "number", "17"]
        ended = subprocess.run(  # noqa: S603 - a program of the server's package
            [program, *words], capture_output=True, text=True, timeout=60, check=True
        )
        found = re.search(r"([\d.]+) requests per second", ended.stdout.replace("\r", "\n"))
        a_second = rate(float(found[1])) if found else "?"
        yield Row(line=row.line, what=row.what, peer=row.peer, theirs=a_second)
