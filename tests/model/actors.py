"""Consumers and redrive lanes that do what chance tells them."""

from typing import Self

import attrs

from model.client import Client
from model.conclusions import Conclusions
from model.evidence import Evidence
from model.world import LEASE_MS, Group
from step_redis import script_calls
from step_redis.commands import xreadgroup
from step_redis.keys import dead_letter_stream, derived_key, redrive_group
from step_redis.lease import Attempt, Held, Member

MAX_HELD = 12


@attrs.define(eq=False)
class Actor(Client):
    """What consumers and lanes have in common."""

    is_leaving: bool = False

    @classmethod
    def new(cls, evidence: Evidence, group: Group, policy: str) -> Self:
        world = evidence.world
        # All times are the virtual clock's, in ms.
        member = Member(f"w{world.random.randrange(4)}", LEASE_MS)
        evidence.members[group].append(member)
        return cls(world, evidence, Conclusions(evidence), group, policy, member)

    def act(self) -> None:
        """Do one thing, if there is one to do."""
        member, now = self.member, self.world.now
        if now < self.paused_until or self.is_gone:
            return
        self.give_up_expired()
        if self.is_at_rest():
            self.conclusions.rests(self.group, member)
        if self.left_as is not None:
            self.leave()
        elif member.name is None and self.is_leaving and not (member.old_names or self.joining):
            self.is_gone = True
        elif member.name is None:
            self.join()
        elif self.is_leaving:
            # Nothing that brings messages may be under way.
            if not self.alone:
                self.leave()
        elif now - self.renewed_at > LEASE_MS * 0.4 and self.world.random.random() < 0.8:
            self._poll_some(member.name)
        else:
            self.work(member.name)

    def stop(self) -> None:
        """Begin to leave."""
        self.is_leaving = True

    def pause(self) -> None:
        """Stop in its tracks for a while, maybe longer than the lease."""
        self.paused_until = self.world.now + self.world.random.randint(100, 3000)
        self.world.note("paused")

    def work(self, name: str) -> None:
        """Do something of what a consumer with a lease does."""
        draw = self.world.random.random()
        if draw < 0.1:
            self._poll_some(name)
        elif draw < 0.4:
            self._begin_some()
        elif draw < 0.9 or self.world.is_quiet:
            self._settle_some(name)
        else:
            self._hand_some_back(name)

    def _poll_some(self, name: str) -> None:
        self.poll(name, self.world.random.randint(1, 8))

    def _begin_some(self) -> None:
        """Begin to handle some of the messages that wait for it."""
        for held in self._some(is_started=False):
            if self.member.is_alive(self.world.now):
                held.started_at = self.world.now
                self.conclusions.begins(self.group, self.names(), self.tokens[held])
        if not self.world.is_quiet and self.world.random.random() < 0.01:
            self.pause()

    def _settle_some(self, name: str) -> None:
        """End the handling of some messages: well, or with a failure."""
        helds = self._some(is_started=True)
        if not helds:
            return
        random = self.world.random
        draw = 0 if self.world.is_quiet else random.random()
        if draw < 0.5:
            about = (self.group.keys, self.group.name, name, _ids(helds))
            call = script_calls.ack(*about, delete=self.group.is_lane)
            self.settle("ack", name, call, Attempt.FINAL, helds)
        elif draw < 0.75:
            kind = random.choice(["failed", "failed", "lost", "interrupted"])
            self._park(name, helds, random.randint(0, 1500), kind)
        else:
            self._copy(name, helds[0])

    def _hand_some_back(self, name: str) -> None:
        if helds := self._some(is_started=False):
            self._park(name, helds, 0, "unstarted")

    def _park(
        self, name: str, helds: list[Held], delay_ms: int, kind: script_calls.ParkKind
    ) -> None:
        about = (self.group.keys, self.group.name, name, _ids(helds))
        call = script_calls.park(*about, delay_ms=delay_ms, kind=kind)
        self.settle("park", name, call, Attempt.PARK, helds, delay_ms=delay_ms, counts_as=kind)

    def _copy(self, name: str, held: Held) -> None:
        """Move a message to another stream; one from a lane goes back to the dead letters."""
        stream, is_lane = self.group.stream, self.group.is_lane
        others = [dead_letter_stream(stream), derived_key(stream, "forward")]
        target = stream if is_lane else self.world.random.choice(others)
        lane = self.group.name if is_lane else redrive_group(stream, self.group.name)
        call = script_calls.copy(
            *(self.group.keys, self.group.name, name, held.id),
            target=target,
            fields=[b"lane", lane.encode()],
            delivery_fields=self.world.random.choice([("first", "last"), ("", "")]),
            delete=is_lane,
        )
        self.settle("copy", name, call, Attempt.FINAL, [held], target=target)

    def _some(self, *, is_started: bool) -> list[Held]:
        """Choose some of the messages that are free to be begun or settled."""
        free = [
            held
            for held in self.member.held.values()
            if held.attempt is None
            and held not in self.awaited
            and (held.started_at is not None) == is_started
        ]
        count = self.world.random.randint(min(1, len(free)), len(free))
        return self.world.random.sample(free, count)


class Consumer(Actor):
    """It reads new messages, and makes the group again when it is gone."""

    def work(self, name: str) -> None:
        if len(self.member.held) < MAX_HELD and self.world.random.random() < 0.25:
            count = self.world.random.randint(1, 8)
            about = (self.group.stream, self.group.name, name)
            self.send_alone("read", name, xreadgroup(*about, count=count, block_ms=None))
        else:
            super().work(name)


@attrs.define(eq=False)
class Lane(Actor):
    """It takes redriven dead letters of one group, and sleeps while there have been none."""

    asleep_until: int = 0

    def join(self) -> None:
        if self.world.now >= self.asleep_until:
            super().join()

    def group_is_gone(self) -> None:
        self.asleep_until = self.world.now + self.world.random.randint(0, 1500)
        self.world.counts["lane asleep"] += 1


def _ids(helds: list[Held]) -> list[str]:
    return [held.id for held in helds]
