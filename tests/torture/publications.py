"""What producers called and what they were told, put together from their journals."""

from collections import Counter, defaultdict
from enum import Enum, auto
from typing import Any

import attrs

EVENTS = ("publish", "published", "raised", "cancel", "cancelled")


class Said(Enum):
    """What a producer was told of a message."""

    WRITTEN = auto()
    """It was given the id of the entry."""
    DELAYED = auto()
    """It was given the handle of the delayed message."""
    PERHAPS = auto()
    """It may have been written; also said of whatever nothing was said of."""
    NOT_WRITTEN = auto()


@attrs.define(eq=False)
class Attempt:
    """A message in a call."""

    number: str
    stream: str
    way: str
    due_from: float = 0
    """Before when it must not be due (ms since 1970)."""
    said: Said = Said.PERHAPS
    result: str = ""
    """The id or the handle that it was given."""


@attrs.define(eq=False)
class Publishing:
    """A call that publishes."""

    name: str
    attempts: dict[str, list[Attempt]]
    """For each stream, in the order in which they are published."""
    key: int | None = None
    """What the user's key is made from, if it has one."""


Call = tuple[str, int]
"""A producer and the number of its call."""


class Publications:
    """Takes in the events of producers' journals."""

    def __init__(self) -> None:
        self.attempts: defaultdict[str, list[Attempt]] = defaultdict(list)
        """By the number of the message; several only for one with a user's key."""
        self.calls: dict[Call, Publishing] = {}
        self.cancelled: defaultdict[str, dict[Call, bool | None]] = defaultdict(dict)
        """What cancelling came to, by handle; None: nobody knows."""
        self.figures: Counter[str] = Counter()
        self.problems: list[str] = []
        self._cancelling: dict[Call, str] = {}

    def take(self, producer: str, line: dict[str, Any]) -> bool:
        """Take in an event; return whether it is one of a producer's."""
        if line["e"] not in EVENTS:
            return False
        getattr(self, f"_on_{line['e']}")((producer, line["c"]), line)
        return True

    def _on_publish(self, call: Call, line: dict[str, Any]) -> None:
        due_from = 0 if line["delay"] is None else 1000 * (line["wall"] + line["delay"])
        attempts = {
            stream: [Attempt(number, stream, line["way"], due_from) for number in numbers]
            for stream, numbers in line["messages"].items()
        }
        name = f"{line['way']} call {call[1]} of {call[0]}"
        self.calls[call] = Publishing(name, attempts, line["key"])
        for attempt in _all(attempts):
            self.attempts[attempt.number].append(attempt)
        self.figures["batches"] += line["way"] in ("batch", "many")

    def _on_published(self, call: Call, line: dict[str, Any]) -> None:
        publishing, result = self.calls[call], line["result"]
        if isinstance(result, dict):
            self._written(publishing, result)
            if any(one.said is not Said.WRITTEN for one in _all(publishing.attempts)):
                self.problems.append(f"{publishing.name} returned fewer ids than it has messages")
            return
        [attempt] = _all(publishing.attempts)
        is_delayed = ":" in result
        attempt.said = Said.DELAYED if is_delayed else Said.WRITTEN
        attempt.result = result
        self.figures["delayed" if is_delayed else "published"] += 1
        if publishing.key is not None:
            before = [one.result for one in self.attempts[attempt.number] if one.result]
            self.figures["published again under their key"] += len(before) > 1

    def _on_raised(self, call: Call, line: dict[str, Any]) -> None:
        why, publishing = f"{line['why']}: {line['text']}", self.calls.get(call)
        attempts = [] if publishing is None else _all(publishing.attempts)
        if attempts and attempts[0].way == "raw":
            return
        if line["unknown"] is None or line["why"] == "DuplicateConflict":
            self.problems.append(f"call {call[1]} of {call[0]} raised {why}")
        elif publishing is None:
            if not line["unknown"]:
                del self.cancelled[self._cancelling[call]][call]
        elif "written" in line:
            self._partly_written(publishing, line)
        elif not line["unknown"]:
            for attempt in attempts:
                attempt.said = Said.NOT_WRITTEN
            self.figures["publishing failed"] += 1
        elif len(attempts) > 1:
            self.problems.append(f"{publishing.name} does not say what may be written: {why}")
        else:
            self.figures["publishing unknown"] += 1

    def _partly_written(self, publishing: Publishing, line: dict[str, Any]) -> None:
        self.figures["partly published"] += 1
        for attempt in _all(publishing.attempts):
            attempt.said = Said.NOT_WRITTEN
        self._written(publishing, line["written"])
        for stream, count in line["perhaps"].items():
            begin = len(line["written"].get(stream, []))
            perhaps = publishing.attempts.get(stream, [])[begin : begin + count]
            for attempt in perhaps:
                attempt.said = Said.PERHAPS
            if len(perhaps) != count:
                self.problems.append(f"{publishing.name}: {count} more may be written to {stream}")
        if line["unknown"] != bool(sum(line["perhaps"].values())):
            self.problems.append(f"{publishing.name}: outcome_unknown is {line['unknown']}: {line}")

    def _written(self, publishing: Publishing, written: dict[str, list[str]]) -> None:
        for stream, ids in written.items():
            attempts = publishing.attempts.get(stream, [])
            if len(ids) > len(attempts):
                self.problems.append(
                    f"{publishing.name}: {len(ids)} ids of {len(attempts)} messages for {stream}"
                )
            for attempt, message_id in zip(attempts, ids, strict=False):
                attempt.said, attempt.result = Said.WRITTEN, message_id
                self.figures["published"] += 1

    def _on_cancel(self, call: Call, line: dict[str, Any]) -> None:
        self._cancelling[call] = line["handle"]
        self.cancelled[line["handle"]][call] = None

    def _on_cancelled(self, call: Call, line: dict[str, Any]) -> None:
        self.cancelled[self._cancelling[call]][call] = line["result"]
        self.figures["cancelled" if line["result"] else "cancelled too late"] += 1


def due_ms(handle: str) -> int:
    """Return when a delayed message is due (ms since 1970), as its handle says."""
    return int(handle.partition(":")[0])


def _all(attempts: dict[str, list[Attempt]]) -> list[Attempt]:
    return [attempt for several in attempts.values() for attempt in several]
