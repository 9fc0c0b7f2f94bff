"""What happened, put together from the journals: who held which message from when to when.

What producers noted is put together apart from it.
"""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import attrs

from torture.journal import JournalReader
from torture.publications import Publications
from torture.settings import CLOCK_TOLERANCE

PARENT = "parent"
"""The name of the journal about the server."""

Key = tuple[str, str]
"""A stream and an id."""


@attrs.define(eq=False)
class Lease:
    """A lease of one membership, over renewals and moves to fresh names, until it is lost."""

    ends: float = 0


@attrs.define(eq=False)
class Hold:
    """A message in the hands of one consumer, from its delivery on."""

    consumer: str
    key: Key
    since: float
    """When the delivery was accepted, with a lease that was valid then."""
    count: int
    lease: Lease
    released: float | None = None
    """When it first sent something that may have ended this."""
    sends: list[tuple[float, str]] = attrs.field(factory=list)
    """When it tried to settle the message, and how."""
    done: float | None = None
    """When a handler had done its work."""
    confirmed: float | None = None
    """When the server's answer to a settlement said that it was carried out."""
    ended: float | None = None
    outcome: str | None = None
    is_final: bool = False
    """Whether it ended with a settlement after which there is no other delivery."""

    @property
    def claimed_until(self) -> float:
        """Until when it certainly was this consumer's alone."""
        ends = [self.lease.ends, *(end for end in (self.released, self.ended) if end is not None)]
        return min(ends) - CLOCK_TOLERANCE

    def __str__(self) -> str:
        def after(moment: float | None) -> str:
            return "-" if moment is None else f"+{moment - self.since:.3f}"

        sends = ", ".join(f"{op} {after(at)}" for at, op in self.sends)
        return (
            f"{self.consumer} since {self.since:.3f} (delivery {self.count}), lease until"
            f" {after(self.lease.ends)}, done {after(self.done)}, sent [{sends}], confirmed"
            f" {after(self.confirmed)}, ended {after(self.ended)} {self.outcome or ''}"
        )


@attrs.define(eq=False)
class _Part:
    """The state of a consumer in one stream while its journal is read."""

    lease: Lease = attrs.field(factory=Lease)
    leases: dict[str, Lease] = attrs.field(factory=dict)
    """By the names that it had on the server."""
    open: dict[str, Hold] = attrs.field(factory=dict)
    is_leaving: bool = False


class History:
    """Reads the journals of a folder as they grow."""

    def __init__(self, folder: Path) -> None:
        self._reader = JournalReader(folder)
        self._parts: defaultdict[tuple[str, str], _Part] = defaultdict(_Part)
        self.holds: defaultdict[Key, list[Hold]] = defaultdict(list)
        self.starts: Counter[Key] = Counter()
        """How often handlers began with a message, also after it was redriven."""
        self.handled: set[Key] = set()
        self.publications = Publications()
        self.figures: Counter[str] = Counter()
        self.freezes: list[tuple[float, float]] = []
        """When the server was certainly standing still."""
        self.problems: list[str] = []
        self._frozen_since = 0.0

    def read(self) -> None:
        """Take in what is new."""
        for consumer, line in self._reader.new_lines():
            event = line["e"].replace("-", "_")
            getattr(self, f"_on_{event}", self._on_other)(consumer, line)

    def _part(self, consumer: str, line: dict[str, Any]) -> _Part:
        return self._parts[consumer, line["m"]]

    def _hold(self, consumer: str, line: dict[str, Any]) -> Hold | None:
        """Find the hold that a line is about: replies and handlers may be late."""
        for hold in reversed(self.holds[line["m"], line["id"]]):
            if hold.consumer == consumer and hold.count == line["n"]:
                return hold
        return None

    def _on_other(self, consumer: str, line: dict[str, Any]) -> None:
        if not self.publications.take(consumer, line):
            self.figures[line["e"]] += 1

    def _on_trimmed(self, trimmer: str, line: dict[str, Any]) -> None:
        self.figures["trims"] += 1
        self.figures["trims held back"] += bool(line["held_back"])
        self.figures["moved by publish_due"] += line["moved"]

    def _on_counters(self, consumer: str, line: dict[str, Any]) -> None:
        for name in ("handlers_abandoned", "handed_back", "groups_lost"):
            self.figures[name] += line[name]

    def _on_server_frozen(self, consumer: str, line: dict[str, Any]) -> None:
        self._frozen_since = line["t"]

    def _on_server_thaws(self, consumer: str, line: dict[str, Any]) -> None:
        self.freezes.append((self._frozen_since, line["t"]))

    def _on_swept(self, consumer: str, line: dict[str, Any]) -> None:
        self.figures["taken over"] += line["parked"]
        self.figures["dead consumers removed"] += line["removed"]

    def _on_join(self, consumer: str, line: dict[str, Any]) -> None:
        self.figures["moves"] += bool(line["old"])
        part = self._part(consumer, line)
        part.lease.ends = line["ends"]
        part.leases[line["name"]] = part.lease

    def _on_renew(self, consumer: str, line: dict[str, Any]) -> None:
        lease = self._part(consumer, line).lease
        lease.ends = max(lease.ends, line["ends"])

    def _on_loss(self, consumer: str, line: dict[str, Any]) -> None:
        self.figures["leases lost"] += 1
        if line["left"] > CLOCK_TOLERANCE and not self._part(consumer, line).is_leaving:
            self.problems.append(
                f"{consumer} lost its lease on {line['m']} at {line['t']:.3f}, {line['left']:.3f} s"
                f" before it was over by its own clock: {line['why']}"
            )

    def _on_lose(self, consumer: str, line: dict[str, Any]) -> None:
        self._part(consumer, line).lease = Lease()

    def _on_hold(self, consumer: str, line: dict[str, Any]) -> None:
        part = self._part(consumer, line)
        for message_id, count in line["rows"]:
            key = line["m"], message_id
            hold = Hold(consumer, key, line["at"], count, part.lease)
            if message_id in part.open:
                self.problems.append(f"{consumer} got {key} while it held it")
            part.open[message_id] = hold
            self.holds[key].append(hold)
            self.figures["deliveries"] += 1
            self.figures["redeliveries"] += count > 1
            self.figures["redriven deliveries"] += line["m"].endswith(".dead")
            self.figures["highest delivery count"] = max(
                count, self.figures["highest delivery count"]
            )

    def _on_start(self, consumer: str, line: dict[str, Any]) -> None:
        part, key = self._part(consumer, line), (line["m"], line["id"])
        self.starts[tuple(line["o"])] += 1
        self.figures["handlers"] += 1
        hold = self._hold(consumer, line)
        if hold is None:
            self.problems.append(f"{consumer} handled {key} without holding it")
        elif hold.lease.ends and line["at"] >= max(hold.lease.ends, part.lease.ends):
            self.problems.append(f"{consumer} began with {key} without a lease: {hold}")

    def _on_done(self, consumer: str, line: dict[str, Any]) -> None:
        self.handled.add(tuple(line["o"]))
        hold = self._hold(consumer, line)
        if hold is not None and hold.done is None:
            hold.done = line["t"]

    def _on_send(self, consumer: str, line: dict[str, Any]) -> None:
        lease = self._part(consumer, line).leases[line["name"]]
        for message_id in line["ids"]:
            holds = self.holds[line["m"], message_id]
            hold = next(hold for hold in reversed(holds) if hold.lease is lease)
            hold.sends.append((line["t"], line["op"]))
            if hold.released is None:
                hold.released = line["t"]

    def _on_leave(self, consumer: str, line: dict[str, Any]) -> None:
        part = self._part(consumer, line)
        part.is_leaving = True
        for hold in part.open.values():
            if hold.released is None:
                hold.released = line["t"]

    def _on_confirm(self, consumer: str, line: dict[str, Any]) -> None:
        hold = self._hold(consumer, line)
        if hold is not None:
            hold.confirmed = line["t"]

    def _on_end(self, consumer: str, line: dict[str, Any]) -> None:
        self._part(consumer, line).open.pop(line["id"], None)
        hold = self._hold(consumer, line)
        if hold is not None:
            hold.ended, hold.outcome = line["t"], f"{line['o']} {line['a'] or ''}".strip()
            hold.is_final = line["o"] == "SETTLED" and line["a"] == "FINAL"
            self.figures[f"outcome {line['o'].lower()}"] += 1
