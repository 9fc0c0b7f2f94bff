"""One round: an empty server, consumers and producers, faults, quiet, the end, the verdict."""

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from random import Random

import attrs
from redis import Redis
from redis.exceptions import RedisError

from proxy import Proxy
from servers import PrivateServer
from step_redis import Retention, StepRedisPoolParams, sync
from torture.chaos import Chaos
from torture.fleet import Fleet
from torture.history import PARENT, History
from torture.journal import SUFFIX, Journal
from torture.ledger import left_over, unsettled
from torture.plan import plan
from torture.plants import PROVOKING
from torture.promises import broken_promises
from torture.recorder import Recorder
from torture.rules import broken_rules
from torture.settings import GROUP, KEPT, PRODUCERS, PROXIES, RECORDER, SLOTS, STREAMS, Order
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
        self._recorder = Recorder(server, f"{order.seed} recorder")
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
                consumers, producers = self._fleets(proxies)
                stack.callback(consumers.kill_all)
                stack.callback(producers.kill_all)
                journal = Journal(self._folder / f"{PARENT}{SUFFIX}")
                chaos = Chaos(self._server, consumers, producers, proxies, journal)
                stack.callback(self._recorder.end)
                self._recorder.start()
                self._go(chaos, consumers, producers, client)
        figures = self._history.figures + self._history.publications.figures
        figures["longest stream"] = self._recorder.longest
        return Result(self._violations, figures, chaos.done, time.monotonic() - began)

    def _make_groups(self) -> None:
        params = StepRedisPoolParams(host=self._server.host, port=self._server.port)
        with sync.StepRedisPool(params) as pool:
            stream = sync.StepRedisStream(pool)
            for name in STREAMS:
                for group in (GROUP, RECORDER):
                    assert stream.create_input_stream(name, group)

    def _fleets(self, proxies: list[Proxy]) -> tuple[Fleet, Fleet]:
        direct, plant = self._server.port, self._order.plant or ""
        through = [direct if slot.proxy is None else proxies[slot.proxy].port for slot in SLOTS]
        consumers = [[str(slot), str(port), plant] for slot, port in enumerate(through)]
        same = [str(direct), str(self._order.seed), str(time.time()), plant]
        producers = [
            [str(slot), str(proxies[slot % PROXIES].port), *same] for slot in range(len(PRODUCERS))
        ]
        return (
            Fleet("consumer", "worker.py", consumers, self._folder),
            Fleet("producer", "producer.py", producers, self._folder),
        )

    def _go(self, chaos: Chaos, consumers: Fleet, producers: Fleet, client: Redis) -> None:
        consumers.start_all()
        left = self._order.seconds
        while left > 0 and not self._violations:
            producers.start_all()
            self._recorder.take_time()
            seconds = min(left, self._order.cycle_seconds)
            left -= seconds
            faults = plan(self._rng, seconds, PROVOKING.get(self._order.plant or "", []))
            chaos.carry_out(faults, seconds, self._found)
            chaos.mend()
            producers.stop_all()
            self._recorder.hurry()
            if not self._violations:
                self._wait_until_quiet(client, consumers)
            self._look(is_over=not self._violations)
            self._note(consumers.problems + producers.problems)
        if not self._violations:
            self._end(client, consumers)

    def _found(self) -> bool:
        """Whether something is wrong already; looked at now and then while a bug is planted."""
        if self._order.plant and time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._look(is_over=False)
        return bool(self._violations)

    def _look(self, *, is_over: bool) -> None:
        """Note what is wrong in the history, and in what producers were told."""
        # What is recorded was noted by its producer before.
        recorded = self._recorder.entries()
        self._history.read()
        publications = self._history.publications
        self._note(broken_rules(self._history) + self._recorder.problems())
        self._note(broken_promises(publications, recorded, is_over=is_over))

    def _wait_until_quiet(self, client: Redis, consumers: Fleet) -> None:
        """All messages are settled, and all consumers that died are gone from the groups."""
        began = changed_at = time.monotonic()
        last: list[Unfinished] = []
        while True:
            try:
                rest = unfinished(client)
            except RedisError:
                # Connections were killed; the next one is a new one.
                rest = []
            consumers.look()
            names = sorted(consumers.names)
            if rest and all(_is_quiet(one, names) for one in rest):
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

    def _note(self, violations: list[str]) -> None:
        self._violations += [one for one in violations if one not in self._violations]

    def _end(self, client: Redis, consumers: Fleet) -> None:
        """Let all consumers stop by themselves, and judge what they leave."""
        consumers.stop_all()
        self._note(consumers.problems + left_over(unfinished(client)))
        self._note(self._recorder.miscounted(client) + self._too_long())
        self._look(is_over=True)
        figures = self._history.figures
        for name, entries in self._recorder.entries().items():
            truth = stream_truth(client, name, entries)
            figures["entries"] += len(entries)
            figures["trimmed"] += len(entries) - client.xlen(name)
            figures["dead letters"] += sum(map(len, truth.dead.values()))
            figures["forwarded"] += sum(map(len, truth.forwarded.values()))
            self._note(unsettled(truth, self._history))

    def _too_long(self) -> list[str]:
        """Trim once more: with everything settled, nothing is held back."""
        params = StepRedisPoolParams(host=self._server.host, port=self._server.port)
        found = []
        with sync.StepRedisPool(params) as pool, self._server.client() as client:
            stream = sync.StepRedisStream(pool)
            for name in STREAMS:
                trimmed = stream.trim(name, Retention(max_len=KEPT))
                if client.xlen(name) > KEPT:
                    found.append(f"{client.xlen(name)} entries are left in {name}: {trimmed}")
        return found


def _is_quiet(rest: Unfinished, names: list[str]) -> bool:
    bases = sorted(name.partition("~")[0] for name in rest.consumers if name != PARKED)
    return rest.is_quiet and (rest.group == RECORDER or bases == names)
