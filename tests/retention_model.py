"""What retention promises, said in plain Python, and random histories of a stream to try it on.

A history is played twice: by the `Model`, which works out the commands for the server on the way,
and by a server. Both say what each trim came to. Ids are pairs of a time, in units so long that it
makes no difference when exactly a history is played, and a sequence number.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias
from unittest.mock import patch

import attrs
from hypothesis import strategies as st

from step_redis import HeldBack, Retention, retention
from step_redis.scripts import Script, script

UNIT_SECONDS = 1000
UNIT_MS = UNIT_SECONDS * 1000
NOW = 100
"""When histories are played, in units after the time of their first entries."""

GROUPS = ("alpha", "beta", "_step:redriven", "_step:redrive:alpha@orders")
CONSUMERS = ("ann", "bob", "_step:parked")

Id: TypeAlias = tuple[int, int]
Words: TypeAlias = tuple[str | int, ...]
"""A command but for the name of the stream, which stands where KEY does."""

KEY = "KEY"


@attrs.frozen
class Held:
    """What holds entries back, as `HeldBack` says it."""

    group: str
    consumer: str | None
    id: Id
    age: int


@attrs.frozen
class Outcome:
    """What one trim came to."""

    removed: int
    held_back: list[Held]
    left: list[Id]


@attrs.frozen
class Expected:
    """What one trim has to come to."""

    removed: int
    held_back: dict[str, Held]
    """For each group the first entry that it holds back."""
    left: list[Id]
    told_until: tuple[float, int]
    """Groups that hold back nothing up to there may be left out: nothing behind it can go."""

    def is_met_by(self, outcome: Outcome) -> bool:
        told = {held.group: held for held in outcome.held_back}
        must_tell = {h.group for h in self.held_back.values() if h.id <= self.told_until}
        return (
            (outcome.removed, outcome.left) == (self.removed, self.left)
            and len(told) == len(outcome.held_back)
            and must_tell <= told.keys()
            and told.items() <= self.held_back.items()
        )


@attrs.define
class Group:
    last_delivered: Id
    pending: dict[Id, str] = attrs.field(factory=dict)

    def receives(self, name: str, entry: Id) -> bool:
        """Whether the group is still to receive an entry."""
        return entry > self.last_delivered and not name.startswith("_step:redrive:")


@attrs.define
class Model:
    """A stream, its groups, and what trimming it has to come to."""

    time: int = 0
    last_id: Id = (0, 0)
    entries: list[Id] = attrs.field(factory=list)
    groups: dict[str, Group] = attrs.field(factory=dict)

    def add(self) -> Id:
        time, sequence = self.last_id
        self.last_id = (time, sequence + 1) if time == self.time else (self.time, 0)
        self.entries.append(self.last_id)
        return self.last_id

    def exceeding(self, max_len: int | None, max_age: int | None) -> list[Id]:
        """The entries beyond one of the limits: by their rank from the newest, or by their age."""
        ranks = range(len(self.entries), 0, -1)
        return [
            entry
            for entry, rank in zip(self.entries, ranks, strict=True)
            if (max_len is not None and rank > max_len)
            or (max_age is not None and NOW - entry[0] > max_age)
        ]

    def trim(self, max_len: int | None, max_age: int | None) -> Expected:
        exceeding = self.exceeding(max_len, max_age)
        held_back: dict[str, Held] = {}
        doomed, unread = set(exceeding), set()
        for entry, (name, group) in itertools.product(exceeding, self.groups.items()):
            if group.receives(name, entry):
                unread.add(entry)
            if group.receives(name, entry) or entry in group.pending:
                held = Held(name, group.pending.get(entry), entry, NOW - entry[0])
                held_back.setdefault(name, held)
                doomed.discard(entry)
        self.entries = [entry for entry in self.entries if entry not in doomed]
        until = min(unread, default=(math.inf, 0))
        return Expected(len(doomed), held_back, list(self.entries), until)


@attrs.frozen
class Clock:
    """When a history is played: turns its times into ids of a server, and back."""

    start_ms: int

    @classmethod
    def at(cls, now_seconds: float) -> "Clock":
        return cls(int(now_seconds * 1000) - NOW * UNIT_MS)

    def text(self, entry: Id) -> str:
        time, sequence = entry
        return f"{self.start_ms + time * UNIT_MS}-{sequence}"

    def id(self, text: str) -> Id:
        ms, _, sequence = text.partition("-")
        return (int(ms) - self.start_ms) // UNIT_MS, int(sequence)

    def held(self, held: HeldBack) -> Held:
        age = math.floor(held.age_seconds / UNIT_SECONDS)
        return Held(held.group, held.consumer, self.id(held.message_id), age)


# --- What may happen ------------------------------------------------------------------------
#
# Numbers choose among what there is, so that every history makes sense.


def _choose(choices: Sequence[Any], number: int) -> Any:
    return choices[number % len(choices)] if choices else None


@attrs.frozen
class Add:
    """Some entries are published, some time after those before."""

    later: int
    count: int

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        model.time = min(model.time + self.later, NOW)
        for _ in range(self.count):
            yield "XADD", KEY, clock.text(model.add()), "f", "v"


@attrs.frozen
class Make:
    """A group is made: from the start, from the end, or from amid the stream."""

    group: str
    start: int | str

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        if self.group not in model.groups:
            start, text = _position(model, clock, self.start)
            model.groups[self.group] = Group(start)
            yield "XGROUP", "CREATE", KEY, self.group, text, "MKSTREAM"


@attrs.frozen
class Move:
    """A group is told to go on elsewhere, forwards or back."""

    group: str
    to: int | str

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        if self.group in model.groups:
            to, text = _position(model, clock, self.to)
            model.groups[self.group].last_delivered = to
            yield "XGROUP", "SETID", KEY, self.group, text


def _position(model: Model, clock: Clock, where: int | str) -> tuple[Id, str]:
    if where == "$":
        return model.last_id, "$"
    entry = _choose(model.entries, where) if where else None
    return (entry, clock.text(entry)) if entry else ((-1, 0), "0")


@attrs.frozen
class Destroy:
    """A group is destroyed."""

    group: str

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        if model.groups.pop(self.group, None):
            yield "XGROUP", "DESTROY", KEY, self.group


@attrs.frozen
class Read:
    """A consumer receives what its group has not received."""

    group: str
    consumer: str
    count: int

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        if group := model.groups.get(self.group):
            unread = [entry for entry in model.entries if entry > group.last_delivered]
            for entry in unread[: self.count]:
                group.last_delivered = entry
                group.pending[entry] = self.consumer
            yield (
                *("XREADGROUP", "GROUP", self.group, self.consumer),
                *("COUNT", self.count, "STREAMS", KEY, ">"),
            )


@attrs.frozen
class Acknowledge:
    """Pending entries are acknowledged, some here and some there."""

    group: str
    first: int
    step: int
    count: int

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        group = model.groups.get(self.group)
        if group and group.pending:
            ids = sorted(group.pending)[self.first :: self.step][: self.count]
            for entry in ids:
                del group.pending[entry]
            yield from (("XACK", KEY, self.group, clock.text(entry)) for entry in ids)


@attrs.frozen
class Claim:
    """A pending entry gets another consumer; or any entry does, pending or not (FORCE)."""

    group: str
    consumer: str
    number: int
    force: bool

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        if group := model.groups.get(self.group):
            # What servers do with entries that are not there any more differs.
            choices = [e for e in model.entries if self.force or e in group.pending]
            if entry := _choose(choices, self.number):
                group.pending[entry] = self.consumer
                force = ("FORCE",) if self.force else ()
                yield "XCLAIM", KEY, self.group, self.consumer, 0, clock.text(entry), *force


@attrs.frozen
class DropConsumer:
    """A consumer is removed from its group, with what is pending with it."""

    group: str
    consumer: str

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        if group := model.groups.get(self.group):
            group.pending = {e: c for e, c in group.pending.items() if c != self.consumer}
            yield "XGROUP", "DELCONSUMER", KEY, self.group, self.consumer


@attrs.frozen
class Delete:
    """An entry is deleted, whether or not it is pending."""

    number: int

    def commands(self, model: Model, clock: Clock) -> Iterator[Words]:
        if entry := _choose(model.entries, self.number):
            model.entries.remove(entry)
            yield "XDEL", KEY, clock.text(entry)


@attrs.frozen
class Trim:
    """The stream is trimmed to a retention, by its length, its age in units, or both."""

    max_len: int | None
    max_age: int | None

    @property
    def retention(self) -> Retention:
        # Half a unit more, so that no entry is near the limit.
        age = None if self.max_age is None else (self.max_age + 0.5) * UNIT_SECONDS
        return Retention(max_len=self.max_len, max_age_seconds=age)


Step: TypeAlias = (
    Add | Make | Move | Destroy | Read | Acknowledge | Claim | DropConsumer | Delete | Trim
)


@attrs.frozen
class Sizes:
    """How much the script does at once, and how the server stores the stream."""

    page_entries: int = 1000
    node_entries: int = 100
    script: str = "10000, 20, 1000000"
    """How many entries it removes in bulk, reads at once, and how many bytes of them."""


SIZES = (
    Sizes(),
    Sizes(page_entries=3),
    Sizes(page_entries=3, node_entries=3),
    Sizes(page_entries=1, node_entries=2, script="4, 1, 1"),
    Sizes(page_entries=5, node_entries=4, script="5, 2, 7"),
    Sizes(page_entries=1000, node_entries=5, script="10000, 3, 1000000"),
)


@attrs.frozen
class History:
    """What happens to a stream, and in which sizes it is trimmed."""

    sizes: Sizes
    steps: tuple[Step, ...]


def histories() -> st.SearchStrategy[History]:
    """Histories of a stream that has groups and some entries from the start, mostly."""
    groups, consumers = st.sampled_from(GROUPS), st.sampled_from(CONSUMERS)
    numbers, few = st.integers(0, 50), st.integers(0, 3)
    positions = numbers | st.just("$")
    some = st.integers(1, 12)
    adds = st.builds(Add, few, some)
    makes = st.builds(Make, groups, positions)
    reads = st.builds(Read, groups, consumers, some)
    lens, ages = st.integers(0, 15), st.integers(0, NOW)
    trims = (
        st.builds(Trim, lens, st.none())
        | st.builds(Trim, st.none(), ages)
        | st.builds(Trim, lens, ages)
    )
    steps = st.one_of(
        *(adds, reads, reads, trims, trims, makes),
        st.builds(Acknowledge, groups, few, st.integers(1, 3), some),
        st.builds(Acknowledge, groups, st.just(0), st.just(1), st.just(100)),
        st.builds(Move, groups, positions),
        st.builds(Destroy, groups),
        st.builds(Claim, groups, consumers, numbers, st.booleans()),
        st.builds(DropConsumer, groups, consumers),
        st.builds(Delete, numbers),
    )
    begin = st.tuples(makes, adds, reads, adds)
    return st.builds(
        lambda sizes, first, rest: History(sizes, (*first, *rest)),
        *(st.sampled_from(SIZES), begin, st.lists(steps, min_size=12, max_size=50)),
    )


# --- Playing them ---------------------------------------------------------------------------


def expect(history: History) -> list[Expected]:
    """What each trim of a history has to come to."""
    model, clock = Model(), Clock(0)
    expected = []
    for step in history.steps:
        if isinstance(step, Trim):
            expected.append(model.trim(step.max_len, step.max_age))
        else:
            list(step.commands(model, clock))
    return expected


def is_right(history: History, outcomes: list[Outcome]) -> bool:
    """Whether each trim of a history came to what it has to."""
    pairs = zip(expect(history), outcomes, strict=True)
    return all(expected.is_met_by(outcome) for expected, outcome in pairs)


def changed(name: str, changes: Sequence[tuple[str, str]]) -> Script:
    """A script of which some texts are replaced by others."""
    text = script(name).text
    for old, new in changes:
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    return Script(name, text, hashlib.sha1(text.encode()).hexdigest())


@attrs.frozen
class Place:
    """A server to play histories on, which is the test's own."""

    redis: Any
    stream: Any
    """A blocking `StepRedisStream`."""


def play(
    history: History, place: Place, key: str, clock: Clock, bug: tuple[str, str] | None = None
) -> list[Outcome]:
    """What each trim of a history comes to on a server, groups in the order in which it says them.

    Args:
        history: What to play.
        place: Where to play it.
        key: The name of the stream, which is deleted first.
        clock: When it is.
        bug: What to change in the script, and into what.
    """
    model, outcomes, redis = Model(), [], place.redis
    sizes = ("10000, 20, 1000000", history.sizes.script)
    trimming = changed("trim", [sizes, bug] if bug else [sizes])
    redis.config_set("stream-node-max-entries", history.sizes.node_entries)
    redis.delete(key)
    commands = redis.pipeline(transaction=False)
    with (
        patch.object(retention, "PAGE_ENTRIES", history.sizes.page_entries),
        patch.object(retention, "script", lambda _: trimming),
    ):
        for step in history.steps:
            if not isinstance(step, Trim):
                for words in step.commands(model, clock):
                    commands.execute_command(*(key if word is KEY else word for word in words))
                continue
            commands.execute()
            model.trim(step.max_len, step.max_age)
            trimmed = place.stream.trim(key, step.retention)
            left = [clock.id(entry.decode()) for entry, _ in redis.xrange(key)]
            held_back = [clock.held(held) for held in trimmed.held_back]
            outcomes.append(Outcome(trimmed.removed, held_back, left))
    commands.execute()
    return outcomes


def groups_of(redis: Any, key: str) -> list[tuple[bytes, bytes, list[tuple[bytes, bytes]]]]:
    """Each group of a stream: how far it has received, and who has which entries that are there."""
    left = {entry for entry, _ in redis.xrange(key)}
    found = []
    for info in redis.xinfo_groups(key):
        rows = redis.xpending_range(key, info["name"], "-", "+", 1000)
        pending = [
            (row["message_id"], row["consumer"]) for row in rows if row["message_id"] in left
        ]
        found.append((info["name"], info["last-delivered-id"], pending))
    return found
