"""Lets things go wrong as planned: processes, the server, the connections to it."""

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

from redis.exceptions import RedisError

from proxy import Proxy
from servers import NOT_LOADED, PrivateServer
from step_redis import StepRedisError, StepRedisPoolParams, sync
from torture.fleet import Fleet
from torture.journal import Journal
from torture.plan import Fault
from torture.settings import GROUP, STREAMS

_LOOK_SECONDS = 0.1


class Chaos:
    """Carries out plans; what it did to the server goes into a journal."""

    def __init__(
        self,
        server: PrivateServer,
        consumers: Fleet,
        producers: Fleet,
        proxies: list[Proxy],
        journal: Journal,
    ) -> None:
        self._server, self._proxies = server, proxies
        self._consumers, self._producers = consumers, producers
        self._journal = journal
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._server_is_frozen = self._server_is_down = False
        self.done: Counter[str] = Counter()

    def carry_out(self, faults: Iterable[Fault], seconds: float, found: Callable[[], bool]) -> None:
        """Let the faults happen, each at its time; end early when something is `found`."""
        began = time.monotonic()
        for fault in faults:
            self._later(began + fault.at, lambda fault=fault: self._begin(fault))
        while (now := time.monotonic()) < began + seconds and not found():
            while self._queue and self._queue[0][0] <= now:
                heapq.heappop(self._queue)[2]()
            self._consumers.look()
            self._producers.look()
            next_at = self._queue[0][0] if self._queue else now + _LOOK_SECONDS
            time.sleep(min(_LOOK_SECONDS, max(0.0, next_at - time.monotonic())))

    def mend(self) -> None:
        """End every fault, and let all consumers run."""
        self._queue.clear()
        self._thaw_server()
        self._start_server()
        for proxy in self._proxies:
            proxy.heal()
            proxy.close_held()
        self._consumers.start_all()

    def _later(self, at: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (at, next(self._numbers), act))

    def _begin(self, fault: Fault) -> None:
        undo = getattr(self, f"_{fault.kind.replace('-', '_').removesuffix('_long')}")(fault)
        if undo is not None:
            self.done[fault.kind] += 1
            self._later(time.monotonic() + fault.seconds, undo)

    # Each returns what makes it good, or None if it could not be.

    def _worker_kill(self, fault: Fault) -> Callable[[], None] | None:
        return self._kill(self._consumers, fault.target)

    def _worker_terminate(self, fault: Fault) -> Callable[[], None] | None:
        if not self._consumers.terminate(fault.target):
            return None

        def start_again() -> None:
            if self._consumers.lives(fault.target):
                self._later(time.monotonic() + 0.2, start_again)
            else:
                self._consumers.start(fault.target)

        return start_again

    def _worker_freeze(self, fault: Fault) -> Callable[[], None] | None:
        return self._freeze(self._consumers, fault.target)

    def _producer_kill(self, fault: Fault) -> Callable[[], None] | None:
        return self._kill(self._producers, fault.target)

    def _producer_freeze(self, fault: Fault) -> Callable[[], None] | None:
        return self._freeze(self._producers, fault.target)

    def _kill(self, fleet: Fleet, slot: int) -> Callable[[], None] | None:
        return (lambda: fleet.start(slot)) if fleet.kill(slot) else None

    def _freeze(self, fleet: Fleet, slot: int) -> Callable[[], None] | None:
        return (lambda: fleet.thaw(slot)) if fleet.freeze(slot) else None

    def _server_kill(self, fault: Fault) -> Callable[[], None] | None:
        self._thaw_server()
        self._server.kill()
        self._server_is_down = True
        return self._start_server

    def _start_server(self) -> None:
        if self._server_is_down:
            self._server.start(NOT_LOADED)
            self._server_is_down = False

    def _server_freeze(self, fault: Fault) -> Callable[[], None] | None:
        if self._server_is_down:
            return None
        self._server.pause()
        self._server_is_frozen = True
        self._journal.write("server-frozen")
        return self._thaw_server

    def _thaw_server(self) -> None:
        if self._server_is_frozen:
            self._journal.write("server-thaws")
            self._server.resume()
            self._server_is_frozen = False

    def _server_pause(self, fault: Fault) -> Callable[[], None] | None:
        return self._tell("CLIENT", "PAUSE", int(1000 * fault.seconds), "ALL")

    def _connections_kill(self, fault: Fault) -> Callable[[], None] | None:
        return self._tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _scripts_flush(self, fault: Fault) -> Callable[[], None] | None:
        return self._tell("SCRIPT", "FLUSH")

    def _redrive(self, fault: Fault) -> Callable[[], None] | None:
        """Nothing goes wrong with it, but it goes wrong with everything else."""
        if self._server_is_down or self._server_is_frozen:
            return None
        where = {"host": self._server.host, "port": self._server.port}
        params = StepRedisPoolParams(**where, socket_timeout=2, socket_connect_timeout=2)
        with suppress(StepRedisError), sync.StepRedisPool(params) as pool:
            for name in STREAMS:
                sync.StepRedisStream(pool).redrive(name, GROUP, limit=fault.number)
            return lambda: None
        return None

    def _tell(self, *command: str | int) -> Callable[[], None] | None:
        if self._server_is_down or self._server_is_frozen:
            return None
        with suppress(RedisError), self._server.client(socket_timeout=2) as client:
            client.execute_command(*command)
            return lambda: None
        return None

    def _proxy_drop_request(self, fault: Fault) -> Callable[[], None]:
        self._proxies[fault.target].drop_requests(fault.matching, times=fault.number)
        return lambda: None

    def _proxy_drop_reply(self, fault: Fault) -> Callable[[], None]:
        self._proxies[fault.target].drop_replies(fault.matching, times=fault.number)
        return lambda: None

    def _proxy_cut_reply(self, fault: Fault) -> Callable[[], None]:
        self._proxies[fault.target].cut_reply_after(fault.number, fault.matching)
        return lambda: None

    def _proxy_hold_replies(self, fault: Fault) -> Callable[[], None]:
        proxy = self._proxies[fault.target]
        proxy.hold_replies(fault.matching)
        return proxy.release_replies

    def _proxy_hold_closes(self, fault: Fault) -> Callable[[], None]:
        """Close towards the clients only: what the server reads for them is lost."""
        proxy = self._proxies[fault.target]
        proxy.hold_closes()
        proxy.cut_client_side()

        def end() -> None:
            proxy.heal()
            proxy.close_held()

        return end

    def _proxy_cut(self, fault: Fault) -> Callable[[], None]:
        self._proxies[fault.target].cut()
        return lambda: None

    def _proxy_refuse(self, fault: Fault) -> Callable[[], None]:
        proxy = self._proxies[fault.target]
        proxy.cut()
        proxy.refuse()
        return proxy.accept
