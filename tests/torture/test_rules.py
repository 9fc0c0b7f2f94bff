"""What the torture test sees in journals, and what it lets pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torture.history import History
from torture.journal import SUFFIX, Journal
from torture.rules import broken_rules

STREAM, ID = "orders", "1-0"
COUNTS = {"a": 1, "b": 2}
"""Consumer b gets it after a."""

Line = tuple[str, str, float, dict[str, Any]]
"""Who, what, when, and more about it."""


def joins(who: str, at: float, ends: float) -> Line:
    return who, "join", at, {"m": STREAM, "name": f"{who}~0", "old": [], "ends": ends}


def about(who: str) -> dict[str, Any]:
    return {"m": STREAM, "id": ID, "n": COUNTS[who], "o": [STREAM, ID]}


def holds(who: str, at: float) -> Line:
    return who, "hold", at, {"m": STREAM, "at": at, "rows": [[ID, COUNTS[who]]]}


def starts(who: str, at: float) -> Line:
    return who, "start", at, {**about(who), "at": at, "kind": "plain"}


def done(who: str, at: float) -> Line:
    return who, "done", at, about(who)


def sends(who: str, at: float, op: str = "ack") -> Line:
    return who, "send", at, {"m": STREAM, "op": op, "ids": [ID], "name": f"{who}~0"}


def confirms(who: str, at: float) -> Line:
    return who, "confirm", at, about(who)


def ends(who: str, at: float, outcome: str = "SETTLED", attempt: str | None = "FINAL") -> Line:
    return who, "end", at, {**about(who), "o": outcome, "a": attempt}


def settles(who: str, at: float, op: str = "ack") -> list[Line]:
    attempt = "PARK" if op == "park" else "FINAL"
    return [
        done(who, at),
        sends(who, at, op),
        confirms(who, at + 0.1),
        ends(who, at + 0.1, attempt=attempt),
    ]


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Write journals and return what rules they break."""

    def judge(*lines: Line) -> list[str]:
        for who, event, at, about in lines:
            monkeypatch.setattr("torture.journal.lease_now", lambda at=at: at)
            Journal(tmp_path / f"{who}{SUFFIX}").write(event, **about)
        history = History(tmp_path)
        history.read()
        return broken_rules(history)

    return judge


def test_handled_once(judge):
    """What one consumer gets, handles and acknowledges breaks no rule."""
    assert judge(joins("a", 0, 2), holds("a", 1), starts("a", 1), *settles("a", 1.5)) == []


def test_taken_over(judge):
    """Once a lease is over, another may get the message, and its first owner settles nothing."""
    first = [joins("a", 0, 2), holds("a", 1), starts("a", 1), done("a", 3), sends("a", 3)]
    second = [joins("b", 2, 4), holds("b", 2.5), *settles("b", 3.5)]
    assert judge(*first, ends("a", 3.2, "LOST", None), *second) == []


def test_parked_and_taken(judge):
    """Whoever has sent a message back may see it in other hands before the answer comes."""
    first = [joins("a", 0, 4), holds("a", 1), sends("a", 1.5, "park")]
    second = [joins("b", 0, 4), holds("b", 1.6), *settles("b", 2)]
    late = [confirms("a", 1.9), ends("a", 1.9, attempt="PARK")]
    assert judge(*first, *second, *late) == []


def test_two_at_once(judge):
    """A message that its owner has a lease for is in nobody else's hands."""
    [problem] = judge(joins("a", 0, 4), joins("b", 0, 4), holds("a", 1), holds("b", 2))
    assert "delivered to two at once" in problem


def test_owner_was_killed(judge):
    """The lease counts until it is over, also if its owner is dead."""
    lines = [joins("a", 0, 4), joins("b", 0, 4), holds("a", 1)]
    assert judge(*lines, holds("b", 3.5)) != []


def test_settled_after_takeover(judge):
    """A settlement is not confirmed to somebody whom the message was taken from."""
    first = [joins("a", 0, 2), holds("a", 1)]
    second = [joins("b", 2, 4), holds("b", 2.5)]
    [problem] = judge(*first, *second, *settles("a", 3))
    assert "settled after another consumer had got it" in problem


def test_delivered_after_settled(judge):
    """What is settled for good does not come back."""
    lines = [joins("a", 0, 4), holds("a", 1), *settles("a", 1.5), joins("b", 0, 4)]
    [problem] = judge(*lines, holds("b", 2))
    assert "delivered again after it was settled" in problem


def test_settled_twice(judge):
    """Two that both settle a message for good are one too many."""
    first = [joins("a", 0, 2), holds("a", 1), done("a", 1.5), sends("a", 1.5)]
    second = [joins("b", 2, 4), holds("b", 2.5), *settles("b", 3)]
    found = judge(*first, *second, ends("a", 3.5))
    assert any("settled more than once" in problem for problem in found)


@pytest.mark.parametrize("op", ["ack", "{orders}.paid"])
def test_not_handled(judge, op):
    """Nothing is acknowledged or forwarded before its handler has done its work."""
    lines = [joins("a", 0, 4), holds("a", 1), starts("a", 1), sends("a", 1.5, op)]
    [problem] = judge(*lines, done("a", 1.6))
    assert "before it was handled" in problem


def test_given_up(judge):
    """Dead letters need not be handled."""
    lines = [joins("a", 0, 4), holds("a", 1), starts("a", 1)]
    assert judge(*lines, sends("a", 1.5, "{orders}.dead")) == []


def test_not_fenced(judge):
    """What is sent to a server that then stands still for a lease is not carried out."""
    frozen = [("parent", "server-frozen", 1.2, {}), ("parent", "server-thaws", 4.0, {})]
    lines = [joins("a", 0, 2), holds("a", 1), done("a", 1.5), sends("a", 1.5)]
    [problem] = judge(*frozen, *lines, confirms("a", 4.1))
    assert "settled without a lease" in problem


def test_lease_lost_early(judge):
    """No lease is over before its owner thinks so."""
    lost = ("a", "loss", 1, {"m": STREAM, "why": "the server knows of none", "left": 1.0})
    [problem] = judge(joins("a", 0, 2), lost)
    assert "before it was over by its own clock" in problem


def test_begun_without_lease(judge):
    """No handler begins with a lease that is over."""
    [problem] = judge(joins("a", 0, 2), holds("a", 1), starts("a", 2.5))
    assert "without a lease" in problem
