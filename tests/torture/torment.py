"""One round: an empty server, consumers and producers, faults, quiet, the end, the verdict."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import attrs
from redis import Redis
from redis.exceptions import RedisError

from proxy import Proxy
from servers import PrivateServer
from step_redis import StepRedisPoolParams, sync
from torture.chaos import Chaos
from torture.fleet import Fleet
from torture.history import PARENT, History
from torture.journal import SUFFIX, Journal
from torture.ledger import left_over, unsettled
from torture.plan import plan
from torture.plants import PROVOKING
from torture.producers import AsyncioProducer, BlockingProducer, Producer
from torture.rules import broken_rules
from torture.settings import GROUP, PROXIES, SLOTS, STREAMS, Order
from torture.truth import PARKED, Unfinished, pending_rows, stream_truth, unfinished

# Without any progress for so long there will be none: what takes longest is a lease, then a handler
# of three leases.
_STANDSTILL_SECONDS = 25

_QUIET_SECONDS = 240
_LOOK_SECONDS = 2.0


@attrs.frozen
class Result:
    """What came of a round."""

    violations: list[str]
    figures: Counter[str]
    faults: Counter[str]
    seconds: float


class Round:
    """Everything of one round; `run` runs it."""

    def __init__(self, server: PrivateServer, order: Order, folder: Path) -> None:
        self._server, self._order = server, order
        self._history = History(folder)
        self._folder = folder
        self._rng = Random(order.seed)
        self._violations: list[str] = []
        self._looked_at = 0.0

    def run(self) -> Result:
        began = time.monotonic()
        with self._server.client() as client:
            self._make_groups()
            with ExitStack() as stack:
                proxies = [
                    stack.enter_context(Proxy(self._server.host, self._server.port))
                    for _ in range(PROXIES)
                ]
                ports = [
                    self._server.port if slot.proxy is None else proxies[slot.proxy].port
                    for slot in SLOTS
                ]
                fleet = Fleet(self._folder, ports, self._order.plant)
                stack.callback(fleet.kill_all)
                journal = Journal(self._folder / f"{PARENT}{SUFFIX}")
                chaos = Chaos(self._server, fleet, proxies, journal)
                producers = [
                    BlockingProducer(self._server, proxies[-1].port, "b", f"{self._order.seed}b"),
                    AsyncioProducer(self._server, self._server.port, "a", f"{self._order.seed}a"),
                ]
                self._go(chaos, fleet, producers, client)
        figures = self._history.figures
        figures["messages"] = sum(len(producer.published) for producer in producers)
        figures["publishing repeated"] = sum(producer.repeated for producer in producers)
        return Result(self._violations, figures, chaos.done, time.monotonic() - began)

    def _make_groups(self) -> None:
        params = StepRedisPoolParams(host=self._server.host, port=self._server.port)
        with sync.StepRedisPool(params) as pool:
            stream = sync.StepRedisStream(pool)
            for name in STREAMS:
                assert stream.create_input_stream(name, GROUP)

    def _go(self, chaos: Chaos, fleet: Fleet, producers: list[Producer], client: Redis) -> None:
        fleet.start_all()
        with _producing(producers):
            left = self._order.seconds
            provoking = PROVOKING.get(self._order.plant or "", [])
            while left > 0 and not self._violations:
                seconds = min(left, self._order.cycle_seconds)
                left -= seconds
                faults = plan(self._rng, seconds, provoking)
                chaos.carry_out(faults, seconds, self._found)
                chaos.mend()
                for producer in producers:
                    producer.pause()
                if not self._violations:
                    self._wait_until_quiet(client, fleet)
                self._check_history(fleet, producers)
                if left > 0 and not self._violations:
                    for producer in producers:
                        producer.go_on()
        if not self._violations:
            self._end(client, fleet, producers)

    def _found(self) -> bool:
        """Whether something is wrong already; looked at now and then while a bug is planted."""
        if self._order.plant and time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._history.read()
            self._note(broken_rules(self._history))
        return bool(self._violations)

    def _wait_until_quiet(self, client: Redis, fleet: Fleet) -> None:
        """All messages are settled, and all consumers that died are gone from the groups."""
        began = changed_at = time.monotonic()
        last: list[Unfinished] = []
        while True:
            try:
                rest = unfinished(client)
            except RedisError:
                # Connections were killed; the next one is a new one.
                rest = []
            fleet.look()
            names = sorted(fleet.names)
            if rest and all(one.is_quiet and _bases(one) == names for one in rest):
                return
            now = time.monotonic()
            if rest != last:
                last, changed_at = rest, now
            if now - changed_at > _STANDSTILL_SECONDS or now - began > _QUIET_SECONDS:
                self._violations.append(
                    f"not quiet {now - began:.0f} s after all was mended, consumers {names}:"
                    + "".join(f"\n    {one}" for one in [*rest, *pending_rows(client)])
                )
                return
            time.sleep(0.2)

    def _check_history(self, fleet: Fleet, producers: list[Producer]) -> None:
        self._history.read()
        self._note(broken_rules(self._history) + fleet.problems)
        for producer in producers:
            if producer.failure is not None:
                self._note([f"a producer failed: {producer.failure!r}"])

    def _note(self, violations: list[str]) -> None:
        self._violations += [one for one in violations if one not in self._violations]

    def _end(self, client: Redis, fleet: Fleet, producers: list[Producer]) -> None:
        """Let all consumers stop by themselves, and judge what they leave."""
        fleet.stop_all()
        self._note(fleet.problems + left_over(unfinished(client)))
        self._history.read()
        self._note(broken_rules(self._history))
        published = [one for producer in producers for one in producer.published]
        for name in STREAMS:
            truth = stream_truth(client, name)
            self._history.figures["entries"] += len(truth.entries)
            self._history.figures["dead letters"] += sum(map(len, truth.dead.values()))
            self._history.figures["forwarded"] += sum(map(len, truth.forwarded.values()))
            self._note(unsettled(truth, self._history, published))


def _bases(rest: Unfinished) -> list[str]:
    return sorted(name.partition("~")[0] for name in rest.consumers if name != PARKED)


@contextmanager
def _producing(producers: list[Producer]) -> Iterator[None]:
    for producer in producers:
        producer.start()
    try:
        yield
    finally:
        for producer in producers:
            producer.end()
