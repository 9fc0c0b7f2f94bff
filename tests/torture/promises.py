"""What publishing promises: each message is there as often, and as late, as its producer was told.

It is held against the entries that were recorded, whatever has been trimmed since.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import attrs

from step_redis.commands import entry_id
from torture.publications import Attempt, Publications, Publishing, Said, due_ms
from torture.settings import CLOCK_TOLERANCE
from torture.truth import Fields

_TOLERANCE_MS = 1000 * CLOCK_TOLERANCE

Found = list[tuple[str, str]]
"""Stream and id of each entry that has a message."""


def broken_promises(
    publications: Publications, recorded: Mapping[str, Mapping[str, Fields]], *, is_over: bool
) -> list[str]:
    """Return what is there and must not be; once all is over, also what is not there and must be.

    Args:
        publications: What producers were told.
        recorded: For each stream its entries by id.
        is_over: Whether nothing is under way any more, nor delayed, nor unrecorded.
    """
    there: defaultdict[str, Found] = defaultdict(list)
    for stream, entries in recorded.items():
        for message_id, fields in entries.items():
            there[fields[b"number"].decode()].append((stream, message_id))
    problems = list(publications.problems)
    for number, found in there.items():
        if number not in publications.attempts:
            problems.append(f"{number}: nobody published it, and it is there: {found}")
    for number, attempts in publications.attempts.items():
        message = _Message(attempts, there.get(number, []), publications)
        rules = [_once, _never, _with_its_id, _one_for_a_key, _when_due, _cancelled]
        rules += [_there] if is_over else []
        problems += [f"{number}: {problem}" for rule in rules for problem in rule(message)]
    for call in publications.calls.values():
        problems += [f"{call.name}: {problem}" for problem in _in_order(call, there)]
    return problems


@attrs.frozen
class _Message:
    """A message, wherever it is and whoever published it."""

    attempts: list[Attempt]
    found: Found
    publications: Publications

    def results(self, said: Said) -> list[str]:
        """Return the ids, or the handles, that producers were given, each once."""
        given = [attempt.result for attempt in self.attempts if attempt.said is said]
        return list(dict.fromkeys(given))

    def cancelled(self, handle: str) -> list[bool | None]:
        return list(self.publications.cancelled[handle].values())


def _once(message: _Message) -> Iterator[str]:
    """However often it was sent, it is there once."""
    if len(message.found) > 1:
        yield f"is there {len(message.found)} times: {message.found}"


def _never(message: _Message) -> Iterator[str]:
    """What certainly was not published is not there."""
    if message.found and all(one.said is Said.NOT_WRITTEN for one in message.attempts):
        yield f"publishing failed without a doubt, and it is there: {message.found}"


def _with_its_id(message: _Message) -> Iterator[str]:
    """Its id is the one that its producer was given."""
    for attempt in message.attempts:
        place = attempt.stream, attempt.result
        if attempt.said is Said.WRITTEN and message.found and place not in message.found:
            yield f"published as {place}, and it is there as {message.found}"


def _one_for_a_key(message: _Message) -> Iterator[str]:
    """All that publish it under one key are given the same."""
    results = message.results(Said.WRITTEN) + message.results(Said.DELAYED)
    if len(results) > 1:
        yield f"published under one key as {', '.join(results)}"


def _when_due(message: _Message) -> Iterator[str]:
    """It is due when its first producer said, and not there before."""
    earliest = min(attempt.due_from for attempt in message.attempts)
    for handle in message.results(Said.DELAYED):
        if due_ms(handle) < earliest - _TOLERANCE_MS:
            yield f"due at {due_ms(handle)}, while it should not be before {earliest:.0f}"
        earliest = max(earliest, due_ms(handle))
    for place in message.found:
        written, _ = entry_id(place[1])
        if written < earliest - _TOLERANCE_MS:
            yield f"{place} is there before it was due, at {earliest:.0f}"


def _cancelled(message: _Message) -> Iterator[str]:
    """Cancelled once, it never is there."""
    for handle in message.results(Said.DELAYED):
        cancelled = message.cancelled(handle)
        if True in cancelled and message.found:
            yield f"cancelled, and it is there: {message.found}"
        if cancelled.count(True) > 1:
            yield f"cancelled {cancelled.count(True)} times"


def _there(message: _Message) -> Iterator[str]:
    """What was published is there, unless it may have been cancelled."""
    if message.found:
        return
    for message_id in message.results(Said.WRITTEN):
        yield f"published as {message_id}, and it is not there"
    for handle in message.results(Said.DELAYED):
        if all(result is False for result in message.cancelled(handle)):
            yield f"delayed as {handle}, and it is not there"


def _in_order(call: Publishing, there: Mapping[str, Found]) -> Iterator[str]:
    """Of the messages of a batch the first ones are there, in their order."""
    for stream, attempts in call.attempts.items():
        places = [there.get(attempt.number, []) for attempt in attempts]
        count = sum(map(bool, places))
        if not all(places[:count]):
            yield f"some are in {stream} behind some that are not: {places}"
        ids = [entry_id(message_id) for found in places[:count] for _, message_id in found[:1]]
        if ids != sorted(ids):
            yield f"in {stream} in another order: {ids}"
