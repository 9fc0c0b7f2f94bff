"""What the torture test sees in journals and streams, and what it lets pass."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from servers import PrivateServer, wait_until
from step_redis import scripts
from torture.history import History
from torture.journal import SUFFIX, Journal
from torture.plants import PLANTS
from torture.promises import broken_promises
from torture.recorder import Recorder
from torture.rules import broken_rules
from torture.settings import GROUP, RECORDER, STREAMS

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
def read(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., History]:
    """Write journals and read them."""

    def read(*lines: Line) -> History:
        folder = tmp_path_factory.mktemp("journals")
        for who, event, at, about in lines:
            monkeypatch.setattr("torture.journal.lease_now", lambda at=at: at)
            Journal(folder / f"{who}{SUFFIX}").write(event, **about)
        history = History(folder)
        history.read()
        return history

    return read


@pytest.fixture
def judge(read: Callable[..., History]) -> Callable[..., list[str]]:
    """Write journals and return what rules they break."""
    return lambda *lines: broken_rules(read(*lines))


@pytest.fixture
def compare(read: Callable[..., History]) -> Callable[..., list[str]]:
    """Write journals and return what promises are broken, with these entries: id to number."""

    def compare(*lines: Line, is_over: bool = True, **entries: str) -> list[str]:
        recorded = {id_.strip("_").replace("_", "-"): number for id_, number in entries.items()}
        fields = {id_: {b"number": number.encode()} for id_, number in recorded.items()}
        publications = read(*lines).publications
        return broken_promises(publications, {STREAM: fields}, is_over=is_over)

    return compare


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


def publishes(*numbers: str, call: int = 1, **about: Any) -> Line:
    """A call of a producer, for messages with these numbers."""
    messages = about.pop("messages", {STREAM: list(numbers)})
    about = {"way": "single", "key": None, "delay": None, "wall": 1.0, **about}
    return "p", "publish", 0, {"c": call, "messages": messages, **about}


def published(result: Any, call: int = 1) -> Line:
    return "p", "published", 0, {"c": call, "result": result}


def raised(unknown: bool | None, call: int = 1, **about: Any) -> Line:
    about = {"why": "ConnectionFailedError", "text": "", "unknown": unknown, **about}
    return "p", "raised", 0, {"c": call, **about}


def partly(written: list[str], perhaps: int, call: int = 1) -> Line:
    about = {"written": {STREAM: written}, "perhaps": {STREAM: perhaps}}
    return raised(bool(perhaps), call, why="PartlyPublishedError", **about)


HANDLE = "3000:m:orders"
DELAYED = [publishes("m", way="later", delay=2.0), published(HANDLE)]
"""Published at 1 s, due at 3 s."""


def cancels(result: bool | None, call: int = 2) -> list[Line]:
    """Cancel the delayed message; None: the reply is lost."""
    begins = ("p", "cancel", 0, {"c": call, "handle": HANDLE})
    if result is None:
        return [begins, raised(True, call)]
    return [begins, ("p", "cancelled", 0, {"c": call, "result": result})]


def test_published(compare):
    """A message that is there once, with its id, breaks no promise."""
    assert compare(publishes("m"), published("5-0"), _5_0="m") == []


def test_published_twice(compare):
    """A message that is there twice is there once too often, also if its outcome is unknown."""
    [problem] = compare(publishes("m"), raised(True), _5_0="m", _6_0="m")
    assert "is there 2 times" in problem
    assert compare(publishes("m"), published("5-0"), _5_0="m", _6_0="m") != []


def test_published_and_not_there(compare):
    """What was published is there when all is over, and until then may not be recorded yet."""
    lines = [publishes("m"), published("5-0")]
    assert compare(*lines, is_over=False) == []
    [problem] = compare(*lines)
    assert "published as 5-0, and it is not there" in problem


def test_published_with_another_id(compare):
    """The id that is returned is that of the entry."""
    [problem] = compare(publishes("m"), published("5-0"), _5_1="m")
    assert "published as ('orders', '5-0')" in problem


def test_nobody_published_it(compare):
    """What is there was published by somebody."""
    [problem] = compare(_5_0="m")
    assert "nobody published it" in problem


@pytest.mark.parametrize("entries", [{}, {"_5_0": "m"}])
def test_outcome_unknown(compare, entries):
    """What may have been written is there once or not at all, and so it is if a producer dies."""
    assert compare(publishes("m"), raised(True), **entries) == []
    assert compare(publishes("m"), **entries) == []


def test_failed_without_a_doubt(compare):
    """What failed without a doubt is not there."""
    lines = [publishes("m"), raised(False)]
    assert compare(*lines) == []
    [problem] = compare(*lines, _5_0="m")
    assert "publishing failed without a doubt" in problem


@pytest.mark.parametrize(
    "failure", [raised(None, why="KeyError"), raised(False, why="DuplicateConflict")]
)
def test_failed_otherwise(compare, failure):
    """Errors that are none of the library's must not be, nor conflicts of equal messages."""
    [problem] = compare(publishes("m"), failure)
    assert "raised" in problem


def test_batch(compare):
    """All messages of a batch are there, in their order."""
    lines = [publishes("m", "n", way="batch"), published({STREAM: ["5-0", "5-1"]})]
    assert compare(*lines, _5_0="m", _5_1="n") == []
    assert any("not there" in problem for problem in compare(*lines, _5_0="m"))


def test_batch_with_too_few_ids(compare):
    """A batch has an id for each of its messages."""
    [problem] = compare(
        publishes("m", "n", way="batch"), published({STREAM: ["5-0"]}), _5_0="m", _5_1="n"
    )
    assert "fewer ids" in problem


def test_batch_in_another_order(compare):
    """The order of the messages is that of the entries."""
    lines = [publishes("m", "n", way="batch"), published({STREAM: ["5-1", "5-0"]})]
    [problem] = compare(*lines, _5_0="n", _5_1="m")
    assert "in another order" in problem


def test_batch_without_its_beginning(compare):
    """Of a batch whose producer died the first messages are there, as many as there are."""
    begins = publishes("m", "n", "o", way="batch")
    assert compare(begins, _5_0="m", _5_1="n") == []
    [problem] = compare(begins, _5_0="m", _5_1="o")
    assert "behind some that are not" in problem


@pytest.mark.parametrize("entries", [{}, {"_5_1": "n"}])
def test_partly_published(compare, entries):
    """It is there what was written, perhaps what may have been, and nothing else."""
    lines = [publishes("m", "n", "o", way="batch"), partly(["5-0"], 1)]
    assert compare(*lines, _5_0="m", **entries) == []
    [problem] = compare(*lines, _5_0="m", _5_1="n", _5_2="o")
    assert "o: publishing failed without a doubt" in problem


def test_partly_published_and_not_there(compare):
    """What is said to have been written is there."""
    found = compare(publishes("m", "n", way="batch"), partly(["5-0"], 0))
    assert any("m: published as 5-0" in problem for problem in found)


def test_partly_published_and_more_than_there_was(compare):
    """No more may have been written than there was."""
    [problem] = compare(publishes("m", way="batch"), partly(["5-0"], 2), _5_0="m")
    assert "2 more" in problem


def test_partly_published_as_more_than_there_was(compare):
    """There are no ids without a message."""
    found = compare(publishes("m", way="batch"), partly(["5-0", "5-1"], 0), _5_0="m")
    assert ["2 ids of 1 messages" in problem for problem in found] == [True]


def test_partly_published_with_a_wrong_word(compare):
    """A failure's outcome is unknown if some message's is, and only then."""
    failure = partly(["5-0"], 0)
    failure[3]["unknown"] = True
    [problem] = compare(publishes("m", "n", way="batch"), failure, _5_0="m")
    assert "outcome_unknown is True" in problem


def test_partly_published_without_a_word(compare):
    """Whoever fails amid a batch with a doubt says which messages it is about."""
    [problem] = compare(publishes("m", "n", way="batch"), raised(True))
    assert "does not say" in problem


def test_one_for_a_key(compare):
    """Whoever publishes under a key that was used is given the first id."""
    lines = [publishes("m", key=1), published("5-0"), publishes("m", key=1, call=2)]
    assert compare(*lines, published("5-0", 2), _5_0="m") == []
    found = compare(*lines, published("6-0", 2), _5_0="m")
    assert any("published under one key as 5-0, 6-0" in problem for problem in found)


def test_a_key_of_which_somebody_knows(compare):
    """If one knows what came of a key, those who do not know change nothing."""
    lines = [publishes("m", key=1), raised(True), publishes("m", key=1, call=2)]
    assert compare(*lines, published("5-0", 2), _5_0="m") == []
    [problem] = compare(*lines, published("5-0", 2))
    assert "not there" in problem


def test_delayed(compare):
    """What is delayed comes when it is due, once."""
    assert compare(*DELAYED, _3000_0="m") == []
    [problem] = compare(*DELAYED)
    assert "delayed as 3000:m:orders, and it is not there" in problem
    [problem] = compare(*DELAYED, _3000_0="m", _3001_0="m")
    assert "is there 2 times" in problem


def test_delayed_and_there_early(compare):
    """What is delayed does not come before it is due."""
    [problem] = compare(*DELAYED, _2900_0="m")
    assert "is there before it was due" in problem


def test_delayed_and_due_early(compare):
    """What is delayed is due as late as its producer said, also if nobody knows its handle."""
    begins = publishes("m", way="later", delay=2.5)
    [problem] = compare(begins, published(HANDLE), _3500_0="m")
    assert "due at 3000" in problem
    [problem] = compare(begins, raised(True), _3000_0="m")
    assert "is there before it was due" in problem


def test_cancelled(compare):
    """What was cancelled does not come, and can be cancelled once."""
    assert compare(*DELAYED, *cancels(True), *cancels(False, 3)) == []
    [problem] = compare(*DELAYED, *cancels(True), _3000_0="m")
    assert "cancelled, and it is there" in problem
    [problem] = compare(*DELAYED, *cancels(True), *cancels(True, 3))
    assert "cancelled 2 times" in problem


def test_cancelled_too_late(compare):
    """What could not be cancelled comes."""
    assert compare(*DELAYED, *cancels(False), _3000_0="m") == []
    [problem] = compare(*DELAYED, *cancels(False))
    assert "and it is not there" in problem


@pytest.mark.parametrize("entries", [{}, {"_3000_0": "m"}])
def test_perhaps_cancelled(compare, entries):
    """What may have been cancelled comes once or not at all, whatever cancelling it again says."""
    assert compare(*DELAYED, *cancels(None), *cancels(False, 3), **entries) == []


@pytest.fixture
def recorded(private_server: Callable[..., PrivateServer]) -> Iterator[tuple[Redis, Recorder]]:
    """A server with a group beside the one that records, and who records."""
    server = private_server()
    recorder = Recorder(server, "0")
    recorder.hurry()
    with server.client() as client:
        for name in STREAMS:
            for group in (GROUP, RECORDER):
                client.xgroup_create(name, group, "0", mkstream=True)
        recorder.start()
        yield client, recorder
        recorder.end()


def test_all_is_recorded(recorded):
    """What was removed after both groups were done with it is recorded all the same."""
    client, recorder = recorded
    first, second = (client.xadd(STREAM, {"number": number}) for number in "mn")
    wait_until(lambda: len(recorder.entries()[STREAM]) == 2)
    wait_until(lambda: not client.xpending(STREAM, RECORDER)["pending"])
    client.xtrim(STREAM, maxlen=0)
    assert recorder.entries()[STREAM] == {
        first.decode(): {b"number": b"m"},
        second.decode(): {b"number": b"n"},
    }
    assert recorder.miscounted(client) == []
    assert recorder.problems() == []


def test_removed_while_it_is_pending(recorded):
    """What some group has not acknowledged must not be removed."""
    client, recorder = recorded
    with client.pipeline() as at_once:
        at_once.xadd(STREAM, {"number": "m"}).xreadgroup(GROUP, "c", {STREAM: ">"})
        at_once.xtrim(STREAM, maxlen=0).execute()
    [problem] = wait_until(recorder.problems)
    assert "c in group torture has not acknowledged it" in problem


def test_removed_before_it_was_read(recorded):
    """Since Redis 7.0 the server counts what nobody could record."""
    client, recorder = recorded
    if "entries-added" not in client.xinfo_stream(STREAM):
        pytest.skip("this server does not count them")
    with client.pipeline() as at_once:
        at_once.xadd(STREAM, {"number": "m"}, id="1-0").xdel(STREAM, "1-0").execute()
    assert any(f"1 entries were added to {STREAM}" in one for one in recorder.miscounted(client))


@pytest.mark.parametrize("change", [one for one in PLANTS.values() if isinstance(one, tuple)])
def test_plants_fit(change):
    """The text that a plant changes is there, once."""
    file, part, other = change
    assert scripts._read(file).count(part) == 1
    assert part != other
