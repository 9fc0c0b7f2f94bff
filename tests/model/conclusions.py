"""What consumers believe must agree with what is so, unless a fault excuses them."""

from collections.abc import Iterable

import attrs

from model.evidence import Evidence, names_of
from model.truth import Token
from model.world import Group, Request
from step_redis.lease import Held, Member, Outcome
from step_redis.messages import Delivery


@attrs.define(eq=False)
class Conclusions:
    """Judges what consumers hold, begin to handle, and conclude."""

    evidence: Evidence

    def accepted(self, member: Member, request: Request, new: Iterable[Held]) -> None:
        """A consumer holds these from now on."""
        group = request.group
        for held in new:
            self.evidence.accounts[held] = []
            self._check_fields(group, held)
            if not self.evidence.is_excused(group, [request.name], held.id):
                self._check_owner(member, request, held)

    def _check_fields(self, group: Group, delivery: Delivery) -> None:
        fields = dict(zip(delivery.fields[::2], delivery.fields[1::2], strict=True))
        if not group.is_lane and fields != {b"id": delivery.id.encode()}:
            raise self.evidence.violated("wrong fields", delivery, fields)
        if group.is_lane and fields[b"lane"] != group.name.encode():
            raise self.evidence.violated("redriven to another group", delivery, fields, group)

    def _check_owner(self, member: Member, request: Request, delivery: Delivery) -> None:
        group = request.group
        row = self.evidence.truths[group].pending.get(delivery.id)
        if row is None or row.consumer != member.name:
            raise self.evidence.violated(
                "held by one, pending with another", delivery, row, request
            )
        for other in self.evidence.members[group]:
            known = other.held.get(delivery.id)
            if known is None or other is member or known.attempt:
                continue
            names = names_of(other)
            if self.evidence.lives(group, names) and not self.evidence.is_excused(
                group, names, delivery.id
            ):
                raise self.evidence.violated("held by two", delivery, member.name, names)

    def begins(self, group: Group, names: list[str], token: Token) -> None:
        """The handling of a delivery begins, by whoever has these names."""
        evidence = self.evidence
        if not evidence.is_excused(group, names, token.id):
            if not evidence.lives(group, names):
                raise evidence.violated("handled without a lease", token, names)
            row = evidence.truths[group].pending.get(token.id)
            if row is None or row.consumer not in names:
                raise evidence.violated("handled by one, pending with another", token, row, names)
            if token in evidence.started:
                raise evidence.violated("one delivery handled twice", token, names)
        evidence.started.add(token)

    def rests(self, group: Group, member: Member) -> None:
        """A consumer waits for no reply: it knows of all that is pending with it."""
        for one, row in self.evidence.truths[group].pending.items():
            if (
                row.consumer == member.name
                and one not in member.held
                and not self.evidence.is_excused(group, [row.consumer], one)
            ):
                raise self.evidence.violated("pending with one who does not know", one, row)

    def concluded(self, group: Group, member: Member, held: Held, names: list[str]) -> None:
        """A consumer, which had these names, believes to know how it ended for a message."""
        assert held.outcome is not None
        evidence, one = self.evidence, held.id
        evidence.world.counts[f"concluded {held.outcome.name.lower()}"] += 1
        settled = any(one in request.settled for request in evidence.accounts[held])
        # What was handed back and came back at once is held as if nothing had happened.
        was_handed_back = any(
            request.about.get("counts_as") == "unstarted" for request in evidence.accounts[held]
        )
        if held.outcome is Outcome.LOST and settled and not was_handed_back:
            raise evidence.violated("concluded as lost, but settled", held)
        if evidence.is_excused(group, names, one):
            return
        if held.outcome is Outcome.SETTLED and not settled:
            raise evidence.violated("concluded as settled, but it was not", held)
        if held.outcome is Outcome.LOST and member.name is not None:
            raise evidence.violated("lost although the lease lives", held, names)
