"""What must be true in the end of every message: settled once, as its kind asks for."""

from collections.abc import Iterable, Iterator

from torture.history import History
from torture.settings import MAX_DELIVERIES, RECORDER
from torture.truth import PARKED, Fields, StreamTruth, Unfinished

# Deliveries that may end any message: it took too long on a slow machine, or died with others.
_ALWAYS = {b"HandlerTimeoutError", b"MaxLostDeliveries"}

_WHY_DEAD = {
    b"poison": {b"FlakyError"},
    b"flaky": {b"FlakyError"},
    b"fatal": {b"FatalError"},
    b"reject": {b"reject"},
    b"gives-up": {b"nack"},
    b"broken": {b"DecodeError"},
}

# Kinds that no handler can do.
_NEVER_DONE = {b"poison", b"fatal", b"reject", b"gives-up", b"broken"}

_FIELD = b"_step:h:_step:dead:"


def unsettled(truth: StreamTruth, history: History) -> list[str]:
    """Return what is wrong with the messages of a stream, after all was settled."""
    found = []
    for message_id, fields in truth.entries.items():
        found += [
            f"{truth.stream} {message_id} ({fields[b'kind'].decode()}): {problem}"
            for problem in _problems(truth, history, message_id, fields)
        ]
    for message_id in {*truth.dead, *truth.forwarded} - set(truth.entries):
        found.append(f"{truth.stream} {message_id} was copied and never published")
    return found


def _problems(
    truth: StreamTruth, history: History, message_id: str, fields: Fields
) -> Iterator[str]:
    kind, key = fields[b"kind"], (truth.stream, message_id)
    holds = history.holds[key]
    dead = truth.dead.get(message_id, [])
    forwarded = truth.forwarded.get(message_id, [])
    seen = "".join(f"\n    {hold}" for hold in holds)
    if len(dead) > 1 or len(forwarded) > 1 or (dead and forwarded):
        yield f"{len(dead)} dead letters, {len(forwarded)} times forwarded{seen}"
    for letter in dead:
        yield from _wrong_letters(letter, fields, history.starts[key], seen)
    if dead:
        return
    if kind in _NEVER_DONE:
        yield f"acknowledged though nobody can have handled it{seen}"
    elif key not in history.handled:
        yield f"acknowledged though nobody had handled it: lost{seen}"
    elif kind == b"forward" and not forwarded:
        yield f"acknowledged without being forwarded{seen}"


def _wrong_letters(letter: Fields, fields: Fields, starts: int, seen: str) -> Iterator[str]:
    why = letter[_FIELD + b"error-type"]
    if why not in _WHY_DEAD.get(fields[b"kind"], set()) | _ALWAYS:
        yield f"given up because of {why.decode()}: {letter[_FIELD + b'error'].decode()}{seen}"
    if why in (b"FlakyError", b"nack", b"HandlerTimeoutError") and starts < MAX_DELIVERIES:
        yield f"given up as failed ({why.decode()}), though handled only {starts} times{seen}"
    if any(letter.get(name) != value for name, value in fields.items()):
        yield f"its dead letter holds something else: {letter}"


def left_over(rest: Iterable[Unfinished]) -> list[str]:
    """Return what is left of consumers that have all stopped by themselves."""
    return [
        f"left after all consumers had stopped: {one}"
        for one in rest
        if not one.is_quiet or set(one.consumers) - {PARKED, RECORDER}
    ]
