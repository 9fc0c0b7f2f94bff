"""What must never be seen in a history, whatever went wrong.

No rule compares with how long something should take: a slow machine breaks none.
"""

from collections.abc import Iterator

from torture.history import History, Hold
from torture.settings import CLOCK_TOLERANCE, LEASE_SECONDS, STREAMS

DEAD = tuple(f"{{{stream}}}.dead" for stream in STREAMS)


def broken_rules(history: History) -> list[str]:
    """Return what was seen in a history and must not be."""
    found = list(history.problems)
    for key, holds in history.holds.items():
        ordered = sorted(holds, key=lambda hold: hold.since)
        for rule in (_one_at_a_time, _settled_by_the_owner, _over_when_settled, _settled_once):
            found += [f"{key}: {problem}" for problem in rule(ordered)]
        for hold in ordered:
            found += [f"{key}: {problem}" for problem in _done_before_settled(hold)]
            found += [f"{key}: {problem}" for problem in _fenced(history, hold)]
    return found


def _one_at_a_time(holds: list[Hold]) -> Iterator[str]:
    """While one has it with a valid lease, nobody else gets it."""
    for at, hold in enumerate(holds):
        for later in holds[at + 1 :]:
            if later.since < hold.claimed_until:
                yield f"delivered to two at once:\n    {hold}\n    {later}"


def _settled_by_the_owner(holds: list[Hold]) -> Iterator[str]:
    """Whoever's settlement is confirmed had it still, so nobody had got it meanwhile."""
    for at, hold in enumerate(holds):
        if hold.confirmed is None:
            continue
        sent = max(moment for moment, _ in hold.sends)
        for later in holds[at + 1 :]:
            if hold.since < later.since < sent:
                yield f"settled after another consumer had got it:\n    {hold}\n    {later}"


def _over_when_settled(holds: list[Hold]) -> Iterator[str]:
    """What is settled for good is not delivered again."""
    for hold in holds:
        for other in holds:
            if hold.is_final and hold.ended is not None and other.since > hold.ended:
                yield f"delivered again after it was settled:\n    {hold}\n    {other}"


def _settled_once(holds: list[Hold]) -> Iterator[str]:
    """Only one may say that it settled it for good."""
    final = [hold for hold in holds if hold.is_final]
    if len(final) > 1:
        yield "settled more than once:" + "".join(f"\n    {hold}" for hold in final)


def _done_before_settled(hold: Hold) -> Iterator[str]:
    """Acknowledging and forwarding come after the handler's work."""
    for moment, what in hold.sends:
        gives_up = what == "park" or what in DEAD
        if not gives_up and (hold.done is None or hold.done > moment):
            yield f"{what} before it was handled: {hold}"


def _fenced(history: History, hold: Hold) -> Iterator[str]:
    """A server that stood still for longer than the lease settles nothing that was sent then."""
    if hold.confirmed is None:
        return
    sent = max(moment for moment, _ in hold.sends if moment < hold.confirmed)
    for begin, end in history.freezes:
        if (
            end - begin > LEASE_SECONDS + CLOCK_TOLERANCE
            and hold.since < begin < sent < end < hold.confirmed
        ):
            yield f"settled without a lease; the server stood still {begin:.3f}-{end:.3f}: {hold}"
