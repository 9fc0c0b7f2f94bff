"""A consumer's part that decides nothing: its requests sent, its replies taken, around `Member`.

It does what the library's own consumers do, step for step. Settlements, reads and polls may be
under way at once; their replies come in any order.
"""

from typing import Any

import attrs

from model.conclusions import Conclusions
from model.evidence import Evidence, code_of, deliveries_of, names_of
from model.truth import Token
from model.world import LEASE_MS, LOST_REPLY, Group, Request, World
from step_redis import script_calls
from step_redis.commands import Command
from step_redis.lease import Attempt, Held, Member
from step_redis.script_calls import ScriptCall


@attrs.define(eq=False)
class Client:
    """One consumer of a group, or one lane for redriven messages."""

    world: World
    evidence: Evidence
    conclusions: Conclusions
    group: Group
    policy: str
    member: Member
    paused_until: int = 0
    renewed_at: int = 0
    joining: str | None = None
    alone: set[str] = attrs.field(factory=set)
    """Kinds of requests under way of which there is one at a time."""
    awaited: set[Held] = attrs.field(factory=set)
    """Messages with a settlement under way."""
    tokens: dict[Held, Token] = attrs.field(factory=dict)
    """Which delivery each message is that it holds."""
    left_as: str | None = None
    left_started: list[str] = attrs.field(factory=list)
    """What was being handled when it left; repeating that must say the same."""
    is_gone: bool = False

    # What it sends.

    def join(self) -> None:
        """Take a lease under a fresh name, unless that is under way."""
        if self.joining is not None or "ensure" in self.alone:
            return
        names = tuple(self.member.old_names)
        self.joining = self.member.fresh_name()
        call = script_calls.join(self.group.keys, self.group.name, self.joining, LEASE_MS, names)
        self._send("join", self.joining, call, old_names=names)

    def poll(self, name: str, count: int) -> None:
        call = script_calls.poll(
            *(self.group.keys, self.group.name, name, LEASE_MS),
            count=count,
            redrives=self.group.is_lane,
        )
        self.send_alone("poll", name, call)

    def leave(self) -> None:
        """Hand everything back; nothing is accepted any more, so this may be repeated."""
        if self.left_as is None:
            assert self.member.name is not None
            self.left_as = self.member.name
            held = self.member.held.items()
            self.left_started = [one for one, about in held if about.started_at is not None]
            self.evidence.retire(self.group, self.member)
        call = script_calls.leave(self.group.keys, self.group.name, self.left_as, self.left_started)
        self.send_alone("leave", self.left_as, call, ids=self.left_started)

    def settle(
        self,
        kind: str,
        name: str,
        call: ScriptCall,
        attempt: Attempt,
        helds: list[Held],
        **about: Any,
    ) -> None:
        """Try to settle messages that are free for it."""
        if not self.member.accepts(name, self.world.now):
            return
        ids = [held.id for held in helds]
        request = self._send(kind, name, call, tuple(helds), ids=ids, **about)
        for held in helds:
            held.attempt = attempt
            self.awaited.add(held)
            self.evidence.accounts[held].append(request)

    def send_alone(self, kind: str, name: str, command: ScriptCall | Command, **about: Any) -> None:
        """Send what there is one of at a time, unless it is under way."""
        if kind not in self.alone:
            self.alone.add(kind)
            self._send(kind, name, command, **about)

    def _send(
        self,
        kind: str,
        name: str,
        command: ScriptCall | Command,
        helds: tuple[Held, ...] = (),
        **about: Any,
    ) -> Request:
        request = Request(kind, self.group, name, command, self, helds, about)
        self.world.send(request)
        return request

    # How it takes replies.

    def answered(self, request: Request) -> None:
        """Take a reply, or that it is lost."""
        self.alone.discard(request.kind)
        self.awaited.difference_update(request.helds)
        code = None if request.reply is LOST_REPLY else code_of(request)
        if request.kind == "leave":
            self.is_gone = code not in {None, "MORE"}
            self.world.counts["left"] += self.is_gone
        elif self.left_as is None:
            names = self.names()
            take = getattr(self, f"_{request.kind}_answered", self._settlement_answered)
            take(request, code)
            self._conclude(names)

    def give_up_expired(self) -> None:
        """Notice that the lease is over."""
        if self.member.has_expired(self.world.now):
            self.world.note("lease ended" if self.joining is None else "lease ended while joining")
            names = self.names()
            self.member.lose()
            self._conclude(names)

    def names(self) -> list[str]:
        """Return all names under which it may have a lease."""
        return names_of(self.member) + ([self.joining] if self.joining else [])

    def is_at_rest(self) -> bool:
        """Whether it waits for no reply."""
        return not (self.alone or self.awaited or self.joining or self.left_as)

    def group_is_gone(self) -> None:
        """Make the group where the policy says."""
        call = script_calls.ensure(self.group.keys, self.group.name, self.policy)
        self.send_alone("ensure", "", call)

    def _ensure_answered(self, request: Request, code: str | None) -> None:
        """Whatever it said, joining comes next."""

    def _join_answered(self, request: Request, code: str | None) -> None:
        member, self.joining = self.member, None
        match code:
            case None:
                member.join_was_lost(request.name)
            case "OK":
                moved = deliveries_of(request)
                new = member.joined(request.name, request.sent_at, self.world.now, moved)
                self.renewed_at = request.sent_at
                if request.about["old_names"]:
                    self.world.counts["moved"] += 1
                    self.world.counts["moved and not seen before"] += len(new)
                self._hold(request, new)
            case _:
                member.lose()
                if code == "GONE":
                    self.group_is_gone()

    def _poll_answered(self, request: Request, code: str | None) -> None:
        member, name = self.member, request.name
        match code:
            case None:
                member.broke(name)
            case "OK":
                new = member.took(name, deliveries_of(request), self.world.now)
                member.renewed(name, request.sent_at)
                self.renewed_at = request.sent_at
                self._hold(request, new)
            case _:
                self._lose_if_it_is(name)

    def _read_answered(self, request: Request, code: str | None) -> None:
        member, name = self.member, request.name
        match code:
            case None:
                member.broke(name)
            case "NOGROUP":
                self._lose_if_it_is(name)
            case _:
                self._hold(request, member.read(name, deliveries_of(request), self.world.now))

    def _settlement_answered(self, request: Request, code: str | None) -> None:
        member, name = self.member, request.name
        match code:
            case None:
                member.broke(name)
            case "OK":
                refused = _refused(request)
                for held in request.helds:
                    conclude = member.was_taken if held.id in refused else member.settled
                    conclude(held)
            case _:
                self.world.counts[f"fenced {request.kind}"] += 1
                for held in request.helds:
                    held.attempt = None
                self._lose_if_it_is(name)

    def _lose_if_it_is(self, name: str) -> None:
        if self.member.name == name:
            self.member.lose()

    def _hold(self, request: Request, new: list[Held] | None) -> None:
        if new is None:
            self.world.counts["lease lost by a reply"] += 1
            return
        for held in new:
            self.tokens[held] = request.tokens[held.id]
        self.conclusions.accepted(self.member, request, new)
        self.world.counts["delivered"] += len(new)

    def _conclude(self, names: list[str]) -> None:
        for held in list(self.tokens):
            if held.outcome is not None:
                del self.tokens[held]
                self.conclusions.concluded(self.group, self.member, held, names)


def _refused(request: Request) -> set[str]:
    if request.kind == "copy":
        return set() if len(request.reply) > 1 else set(request.about["ids"])
    return {one.decode() for one in request.reply[1:]}
