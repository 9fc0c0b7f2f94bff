"""A server, a clock that only the model moves, and a network that delays, reorders and loses.

A request goes through the world in two steps of their own: the server executes it, and its sender
gets the reply. Between them anything else may happen. A fault tells the sender that the reply is
lost, before or after the execution; a request that is executed although its sender was told so is
a zombie.
"""

import hashlib
from collections import Counter, deque
from functools import cache
from random import Random
from typing import Any, Protocol

import attrs
from redis import Connection
from redis.exceptions import NoScriptError, ResponseError

from step_redis.commands import Command
from step_redis.keys import GroupKeys
from step_redis.lease import Held
from step_redis.script_calls import ScriptCall
from step_redis.scripts import Script

LEASE_MS = 1000
CLOCK_KEY = "model:clock"
# The ids of entries begin with it, and get one digit more as a run goes on.
START_MS = 9_998_000

_TIME = "local now = time[1] * 1000 + math.floor(time[2] / 1000)"
_VIRTUAL_TIME = f"local now = tonumber(redis.call('GET', '{CLOCK_KEY}'))"
_PAGE = "local PAGE = 500"

LOST_REPLY = object()


@attrs.frozen
class Group:
    """A group under test: of the stream, or of its dead letters (`is_lane`)."""

    stream: str
    name: str
    keys: GroupKeys = attrs.field(repr=False)
    is_lane: bool = False

    @classmethod
    def of(cls, stream: str, name: str, *, is_lane: bool = False) -> "Group":
        return cls(stream, name, GroupKeys.of(stream, name), is_lane)


class Sender(Protocol):
    """Whoever sends requests and gets replies."""

    paused_until: int

    def answered(self, request: "Request") -> None: ...


@attrs.define(eq=False)
class Request:
    """A command under way, and what its execution did."""

    kind: str
    group: Group
    name: str
    command: ScriptCall | Command = attrs.field(repr=False)
    sender: Sender | None = attrs.field(default=None, repr=False)
    helds: tuple[Held, ...] = attrs.field(default=(), repr=False)
    """The messages it is to settle."""
    about: dict[str, Any] = attrs.field(factory=dict)
    """What else its execution is checked against."""
    sent_at: int = 0
    reply: Any = attrs.field(default=None, repr=False)
    settled: set[str] = attrs.field(factory=set)
    """The ids that it settled, put aside or handed back."""
    tokens: dict[str, Any] = attrs.field(factory=dict, repr=False)
    """Which delivery each message of the reply is."""


@cache
def _for_the_model(script: Script, page: int, planted: tuple[tuple[str, str], ...]) -> Script:
    """Return a script that runs by the virtual clock and with small pages."""
    text = script.text
    if script.name != "ensure":
        for old, new in ((_TIME, _VIRTUAL_TIME), (_PAGE, f"local PAGE = {page}")):
            assert text.count(old) == 1, f"{script.name}.lua has no {old!r} to replace"
            text = text.replace(old, new)
    for old, new in planted:
        text = text.replace(old, new)
    return Script(script.name, text, hashlib.sha1(text.encode()).hexdigest())


@attrs.define(eq=False)
class World:
    """Everything around the consumers; the same seed makes the same things happen."""

    connection: Connection
    random: Random
    page: int = 500
    planted: tuple[tuple[str, str], ...] = ()
    """Texts to replace in the scripts."""
    now: int = START_MS
    under_way: list[Request] = attrs.field(factory=list)
    replies: list[Request] = attrs.field(factory=list)
    is_quiet: bool = False
    """Whether nothing goes wrong any more."""
    counts: Counter[str] = attrs.field(factory=Counter)
    log: deque[str] = attrs.field(factory=lambda: deque(maxlen=80))

    def note(self, event: str, about: object = "") -> None:
        """Count something that happened, and remember it for the report of a violation."""
        self.counts[event] += 1
        self.log.append(f"{self.now} {event} {about}")

    def send(self, request: Request) -> None:
        """Put a request on its way."""
        request.sent_at = self.now
        self.under_way.append(request)

    def lose(self, request: Request) -> None:
        """Tell the sender that no reply will come, whenever it listens."""
        if request.sender is not None:
            self.replies.append(
                attrs.evolve(request, reply=LOST_REPLY, settled=request.settled, tokens={})
            )

    def forget(self, sender: Sender) -> None:
        """Nobody waits for this sender's replies any more; what it sent is still under way."""
        for request in self.under_way:
            if request.sender is sender:
                request.sender = None
        self.replies = [one for one in self.replies if one.sender is not sender]

    def hand_over(self, request: Request) -> None:
        """Let the sender have its reply."""
        assert request.sender is not None
        self.log.append(f"{self.now} reply {request.kind} {request.name} {_short(request.reply)}")
        request.sender.answered(request)

    def listening(self) -> list[Request]:
        """Return the requests whose reply can be handed over now."""
        return [one for one in self.replies if one.sender.paused_until <= self.now]

    def command(self, call: ScriptCall | Command) -> Command:
        """Return what goes to the server."""
        return self._scripted(call).by_sha() if isinstance(call, ScriptCall) else call

    def run(self, *commands: ScriptCall | Command) -> list[Any]:
        """Run commands at once, in one trip and at the time of the virtual clock."""
        clock: Command = ("SET", CLOCK_KEY, self.now)
        packed = self.connection.pack_commands([clock, *map(self.command, commands)])
        self.connection.send_packed_command(packed)
        _, *replies = [self._read() for _ in range(len(commands) + 1)]
        if any(isinstance(reply, NoScriptError) for reply in replies):
            self.counts["script sent along"] += 1
            for call in commands:
                if isinstance(call, ScriptCall):
                    self._do("SCRIPT", "LOAD", self._scripted(call).script.text)
            return self.run(*commands)
        return replies

    def ask(self, *command: str | int) -> Any:
        """Run one command that must not fail."""
        [reply] = self.run(command)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def has_entry(self, stream: str, message_id: str) -> bool:
        """Whether an entry is in a stream."""
        return bool(self.ask("XRANGE", stream, message_id, message_id))

    def _scripted(self, call: ScriptCall) -> ScriptCall:
        return attrs.evolve(call, script=_for_the_model(call.script, self.page, self.planted))

    def _do(self, *command: str) -> Any:
        self.connection.send_command(*command)
        return self._read()

    def _read(self) -> Any:
        try:
            return self.connection.read_response()
        except ResponseError as error:
            return error


def _short(reply: Any) -> str:
    if reply is LOST_REPLY:
        return "lost"
    if isinstance(reply, list) and reply and isinstance(reply[0], list):
        return f"{len(reply[0][1])} entries"
    if isinstance(reply, list):
        shown = [one[0] if isinstance(one, list) else one for one in reply]
        return " ".join(one.decode() if isinstance(one, bytes) else str(one) for one in shown)
    return str(reply)
