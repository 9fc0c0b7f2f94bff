"""One run: consumers at work while things go wrong, then quiet, then the end."""

from contextlib import ExitStack
from random import Random
from unittest.mock import patch

import attrs
from redis import Connection

from model.actors import Actor, Consumer, Lane
from model.evidence import Evidence, InvariantError
from model.faults import Faults
from model.oracle import Oracle
from model.truth import PARKED, Truth
from model.world import LEASE_MS, Group, Request, World
from step_redis import script_calls
from step_redis.keys import dead_letter_stream, derived_key, redrive_group
from step_redis.script_calls import ScriptCall

STREAM = "s"
GROUPS = ("A", "B")
CONSUMERS_PER_GROUP = 4
QUIET_STEPS = 60_000


@attrs.define(eq=False)
class Simulation:
    """Everything of one run."""

    world: World
    policy: str
    steps: int
    groups: list[Group] = attrs.field(init=False)
    evidence: Evidence = attrs.field(init=False)
    oracle: Oracle = attrs.field(init=False)
    faults: Faults = attrs.field(init=False)
    actors: list[Actor] = attrs.field(init=False)
    published: int = 0

    def __attrs_post_init__(self) -> None:
        dead = dead_letter_stream(STREAM)
        self.groups = [Group.of(STREAM, name) for name in GROUPS]
        self.groups += [
            Group.of(dead, redrive_group(STREAM, name), is_lane=True) for name in GROUPS
        ]
        self.evidence = Evidence(
            self.world,
            {group: Truth() for group in self.groups},
            {group: [] for group in self.groups},
        )
        self.oracle = Oracle(self.evidence)
        self.faults = Faults(self.world, self.evidence, STREAM)
        self.actors = [
            self._new_actor(group) for group in self.groups for _ in range(self._size(group))
        ]

    def run(self) -> None:
        """Run until the end; raises `InvariantError`."""
        world = self.world
        world.ask("FLUSHALL")
        world.ask("SCRIPT", "FLUSH")
        for _ in range(self.steps):
            world.now += world.random.randint(0, 8)
            self._step()
        # Nothing but what the consumers do may mend the last one.
        self._fault()
        world.is_quiet = True
        self._settle_down()
        self._leave()
        self._check_what_is_left()

    def _step(self) -> None:
        random = self.world.random
        draw = random.random()
        if draw < 0.32:
            self._execute_one()
        elif draw < 0.64:
            self._answer_one()
        elif draw < 0.67:
            self._publish()
        elif draw < 0.675:
            self._redrive()
        elif draw < 0.677:
            self._crash()
        elif draw < 0.679:
            random.choice(self.actors).stop()
        elif draw < 0.681:
            random.choice(self.actors).pause()
        elif draw < 0.684:
            self._fault()
        elif draw < 0.694:
            self.faults.back_up()
        else:
            self._act(random.choice(self.actors))

    def _fault(self) -> None:
        fault = self.faults.any()
        self.world.note(f"fault: {fault.__name__}")
        fault()

    def _act(self, actor: Actor) -> None:
        actor.act()
        if actor.is_gone and not self.world.is_quiet:
            self._replace(actor)

    def _execute_one(self) -> None:
        world = self.world
        if not world.under_way:
            return
        request = world.under_way.pop(world.random.randrange(len(world.under_way)))
        draw = 1 if world.is_quiet else world.random.random()
        if draw < 0.03:
            world.note(f"lost request {request.kind}", request.name)
            world.lose(request)
        elif draw < 0.08 and request.sender:
            world.note(f"zombie {request.kind}", request.name)
            world.lose(request)
            request.sender = None
            world.under_way.append(request)
        else:
            self.oracle.execute(request)
            if request.sender:
                world.replies.append(request)

    def _answer_one(self) -> None:
        world = self.world
        listening = world.listening()
        if not listening:
            return
        request = world.random.choice(listening)
        world.replies.remove(request)
        if not world.is_quiet and world.random.random() < 0.05:
            world.note(f"lost reply {request.kind}", request.name)
            world.lose(request)
        else:
            world.hand_over(request)

    def _publish(self) -> None:
        for _ in range(self.world.random.randint(1, 4)):
            self.published += 1
            entry_id = f"{self.world.now}-{self.published}"
            self.world.ask("XADD", STREAM, entry_id, "id", entry_id)

    def _redrive(self) -> None:
        dead = dead_letter_stream(STREAM)
        lane = self.world.random.choice([group for group in self.groups if group.is_lane])
        ids = [
            entry[0].decode()
            for entry in self.world.ask("XRANGE", dead, "-", "+")
            if entry[1][1] == lane.name.encode()
        ]
        if ids:
            call = script_calls.redrive(lane.keys, lane.name, ids[:5])
            self.world.send(Request("redrive", lane, "", call))

    def _crash(self) -> None:
        actor = self.world.random.choice(self.actors)
        self.world.note("crash", actor.member.name)
        self._replace(actor)

    def _replace(self, actor: Actor) -> None:
        """Another one starts; what the old one sent is still under way."""
        self.world.forget(actor)
        self.evidence.retire(actor.group, actor.member)
        self.actors[self.actors.index(actor)] = self._new_actor(actor.group)

    def _new_actor(self, group: Group) -> Actor:
        kind = Lane if group.is_lane else Consumer
        return kind.new(self.evidence, group, self.policy)

    def _size(self, group: Group) -> int:
        return 2 if group.is_lane else CONSUMERS_PER_GROUP

    def _quiet_step(self) -> None:
        self.world.now += self.world.random.randint(0, 8)
        draw = self.world.random.random()
        if draw < 0.33:
            self._execute_one()
        elif draw < 0.66:
            self._answer_one()
        else:
            self._act(self.world.random.choice(self.actors))

    def _settle_down(self) -> None:
        """Whatever happened, all that is there and all that comes is settled."""
        for _ in range(5):
            self._publish()
        for step in range(QUIET_STEPS):
            self._quiet_step()
            if step % 100 == 0 and not self._unsettled():
                return
        raise self.evidence.violated("never settled", self._unsettled())

    def _unsettled(self) -> dict[str, object]:
        found: dict[str, object] = {}
        entries = {entry[0].decode() for entry in self.world.ask("XRANGE", STREAM, "-", "+")}
        for group, truth in self.evidence.truths.items():
            if truth.pending:
                found[f"{group.name} pending"] = truth.pending
            if not group.is_lane and entries - truth.settled:
                found[group.name] = sorted(entries - truth.settled)
        return found

    def _leave(self) -> None:
        for actor in self.actors:
            actor.stop()
        self._until_gone()
        for group, truth in self.evidence.truths.items():
            if truth.exists:
                self._clean_up(group)

    def _clean_up(self, group: Group) -> None:
        """Whoever comes later removes what dead consumers left."""
        name = f"last~{0:016x}"
        about = (group.keys, group.name, name)
        self.world.now += 10 * LEASE_MS
        self._at_once("join", group, script_calls.join(*about, LEASE_MS, []))
        for _ in range(20):
            self.world.now += LEASE_MS // 2
            self._at_once("poll", group, script_calls.poll(*about, LEASE_MS, count=0))
        self._at_once("leave", group, script_calls.leave(*about, []))

    def _at_once(self, kind: str, group: Group, call: ScriptCall) -> None:
        self.oracle.execute(
            Request(kind, group, f"last~{0:016x}", call, about={"old_names": (), "ids": []})
        )

    def _until_gone(self) -> None:
        for _ in range(QUIET_STEPS):
            if all(actor.is_gone for actor in self.actors) and not self.world.under_way:
                return
            self._quiet_step()
        raise self.evidence.violated("cannot leave", self.actors)

    def _check_what_is_left(self) -> None:
        world = self.world
        for group, truth in self.evidence.truths.items():
            if truth.exists:
                rows = world.ask("XINFO", "CONSUMERS", group.stream, group.name)
                if left := [row[1] for row in rows if row[1] != PARKED.encode()]:
                    raise self.evidence.violated("consumers are left", group, left)
        stay = {STREAM, dead_letter_stream(STREAM), derived_key(STREAM, "forward")}
        stay |= {group.keys.checkpoint for group in self.groups}
        for key in world.ask("KEYS", f"*{STREAM}*"):
            if world.ask("PTTL", key) == -1 and key.decode() not in stay:
                raise self.evidence.violated("a key is left for good", key, world.ask("DUMP", key))


def simulate(
    connection: Connection,
    seed: int,
    policy: str,
    *,
    steps: int = 4000,
    planted: tuple[tuple[str, str], ...] = (),
) -> World:
    """Run one simulation on an otherwise unused server; return what happened."""
    random = Random(f"{seed} {policy}")
    is_small = random.random() < 0.5
    world = World(connection, random, page=3 if is_small else 500, planted=planted)
    with ExitStack() as patches:
        # Names decide in which order the server lists consumers.
        patches.enter_context(patch("secrets.token_hex", lambda size: random.randbytes(size).hex()))
        patches.enter_context(patch.object(script_calls, "SWEEP_MS", 300))
        patches.enter_context(patch.object(script_calls, "SWEEP_BUDGET", 5 if is_small else 1000))
        try:
            Simulation(world, policy, steps).run()
        except InvariantError as error:
            error.add_note(f"in the run of seed {seed}, policy {policy!r}")
            raise
    return world
