"""What goes wrong around the consumers, each with what the oracle has to excuse for it, and why."""

from collections.abc import Callable
from typing import Any

import attrs

from model.evidence import Evidence
from model.truth import Truth
from model.world import Group, World
from step_redis.commands import entry_id


@attrs.define(eq=False)
class Backup:
    """All keys as a replica has them that lags behind, and what was so then."""

    keys: dict[bytes, tuple[int, bytes]]
    truths: dict[Group, Truth]

    @classmethod
    def take(cls, world: World, evidence: Evidence) -> "Backup":
        names = world.ask("KEYS", "*")
        replies = world.run(*(part for key in names for part in (("PTTL", key), ("DUMP", key))))
        pairs = zip(replies[::2], replies[1::2], strict=True)
        truths = {group: truth.copy() for group, truth in evidence.truths.items()}
        return cls(dict(zip(names, pairs, strict=True)), truths)


@attrs.define(eq=False)
class Faults:
    """Faults of the server and of other programs, for one run."""

    world: World
    evidence: Evidence
    stream: str
    backup: Backup | None = None

    def any(self) -> Callable[[], None]:
        """Choose a fault."""
        return self.world.random.choice(
            [
                *(self.flush_scripts, self.end_leases, self.flush_all, self.delete_stream),
                *(self.destroy_group, self.make_group_anew, self.set_id, self.set_id),
                *(self.evict_leases, self.evict_due_times, self.evict_attempts),
                *(self.evict_checkpoint, self.delete_pending, self.trim, self.foreign_ack),
                *(self.fail_over, self.fail_over),
            ]
        )

    def flush_scripts(self) -> None:
        """The server forgets the scripts; that excuses nothing."""
        self.world.ask("SCRIPT", "FLUSH")

    def end_leases(self) -> None:
        """Everybody stands still until all leases are over; consumers see that by their clocks."""
        self.world.now += 3000

    def flush_all(self) -> None:
        """Nothing is left: all leases end untold."""
        self.world.ask("FLUSHALL")
        self._lose_groups(list(self.evidence.truths))

    def delete_stream(self) -> None:
        """The stream goes, its records stay."""
        self.world.ask("DEL", self.stream)
        self._lose_groups(self._groups())

    def destroy_group(self) -> None:
        """A group goes; a new one delivers again what its policy says (see `ensure`)."""
        self._destroy(self._group())

    def make_group_anew(self) -> None:
        """Another program replaces a group, with the same records beside it."""
        group = self._group()
        self._destroy(group)
        self.world.ask("XGROUP", "CREATE", group.stream, group.name, "0", "MKSTREAM")
        truth = self.evidence.truths[group]
        truth.exists = True
        truth.rewind(set(truth.settled))

    def set_id(self) -> None:
        """A group is told to go on elsewhere.

        What it skips is not delivered. What it delivers again is taken from its owner by the
        server itself if it is pending, and starts with a count of one.
        """
        group = self._group()
        truth = self.evidence.truths[group]
        entries = self._ids()
        if not truth.exists or not entries:
            return
        start = self.world.random.choice([*entries, "0-0"])
        [was] = [
            info[b"last-delivered-id"].decode()
            for info in map(_pairs, self.world.ask("XINFO", "GROUPS", group.stream))
            if info[b"name"] == group.name.encode()
        ]
        self.world.ask("XGROUP", "SETID", group.stream, group.name, start)
        above = {one for one in entries if entry_id(one) > entry_id(start)}
        truth.rewind(above)
        truth.settled |= {
            one for one in entries if entry_id(was) < entry_id(one) <= entry_id(start)
        }
        truth.odd |= above & truth.pending.keys()

    def evict_leases(self) -> None:
        """All leases of a group end untold."""
        group = self._any_group()
        self.world.ask("DEL", group.keys.leases)
        self.evidence.truths[group].void_leases()

    def evict_due_times(self) -> None:
        """What is parked may come at once."""
        group = self._any_group()
        self.world.ask("DEL", group.keys.due)
        self.evidence.truths[group].due.clear()

    def evict_attempts(self) -> None:
        """Lost deliveries look like failed ones."""
        group = self._any_group()
        self.world.ask("DEL", group.keys.attempts)
        truth = self.evidence.truths[group]
        for record in (truth.lost, truth.interrupted):
            truth.forgotten.update(record)
            record.clear()

    def evict_checkpoint(self) -> None:
        """A new group starts from the beginning; that excuses nothing."""
        self.world.ask("DEL", self._group().keys.checkpoint)

    def delete_pending(self) -> None:
        """A user deletes entries, pending or not: they may vanish (the oracle looks)."""
        pending = [one for truth in self.evidence.truths.values() for one in truth.pending]
        ids = sorted({*pending, *self._ids()})
        if chosen := self.world.random.sample(ids, min(3, len(ids))):
            for stream in {group.stream for group in self.evidence.truths}:
                self.world.ask("XDEL", stream, *chosen)

    def trim(self) -> None:
        """As `delete_pending`, from the start of the stream."""
        self.world.ask("XTRIM", self.stream, "MAXLEN", self.world.random.randint(0, 20))

    def foreign_ack(self) -> None:
        """Another program acknowledges what it does not own."""
        group = self._any_group()
        truth = self.evidence.truths[group]
        ids = sorted(truth.pending)
        for one in self.world.random.sample(ids, min(2, len(ids))):
            self.world.ask("XACK", group.stream, group.name, one)
            del truth.pending[one]
            truth.settle(one)
            truth.odd.add(one)

    def back_up(self) -> None:
        """A replica has got so far."""
        self.backup = Backup.take(self.world, self.evidence)

    def fail_over(self) -> None:
        """A replica that lags behind takes over; all connections break, and consumers notice.

        What came after the backup never was. Consumers may hold what is not theirs any more, or
        not know what is theirs again; their attempts may have been undone. Moving to a fresh name
        tells them: so each one moves, also those that were waiting for nothing.
        """
        if self.backup is None:
            return
        world, backup = self.world, self.backup
        world.ask("FLUSHALL")
        world.run(
            *(("RESTORE", key, max(ttl, 0), dump) for key, (ttl, dump) in backup.keys.items())
        )
        for group, truth in backup.truths.items():
            restored = truth.copy()
            restored.voided |= self.evidence.truths[group].voided
            restored.voided |= self.evidence.truths[group].leases.keys() | restored.leases.keys()
            restored.odd |= restored.pending.keys()
            restored.epoch = Truth().epoch
            self.evidence.truths[group] = restored
        for requests in self.evidence.accounts.values():
            for request in requests:
                request.settled.clear()
        for request in world.under_way:
            world.lose(request)
        world.under_way.clear()
        for request in [one for one in world.replies if one.reply is not None]:
            world.replies.remove(request)
            world.lose(request)
        for members in self.evidence.members.values():
            for member in members:
                if member.name is not None:
                    member.broke(member.name)

    def _destroy(self, group: Group) -> None:
        if self.evidence.truths[group].exists:
            self.world.ask("XGROUP", "DESTROY", group.stream, group.name)
            self._lose_groups([group])

    def _lose_groups(self, groups: list[Group]) -> None:
        for group in groups:
            self.evidence.truths[group] = self.evidence.truths[group].gone()

    def _groups(self) -> list[Group]:
        return [group for group in self.evidence.truths if not group.is_lane]

    def _group(self) -> Group:
        return self.world.random.choice(self._groups())

    def _any_group(self) -> Group:
        return self.world.random.choice(list(self.evidence.truths))

    def _ids(self) -> list[str]:
        return [entry[0].decode() for entry in self.world.ask("XRANGE", self.stream, "-", "+")]


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
