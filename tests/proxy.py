"""A TCP proxy in front of a server that loses requests, replies and connections on command."""

import queue
import selectors
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum
from typing import Any, Self

import attrs

from servers import LOOPBACK, free_port


class _Kind(Enum):
    DROP_REQUEST = "request dropped"
    HOLD_REQUEST = "request held"
    DROP_REPLY = "reply dropped"
    CUT_REPLY = "reply cut"
    HOLD_REPLY = "reply held"


@attrs.define(eq=False)
class _Fault:
    """What to do to requests that contain `matching`: after the first few, so many times."""

    kind: _Kind
    matching: bytes
    after: int = 0
    times: int | None = 1
    bytes_count: int = 0

    def strikes(self, request: bytes) -> bool:
        if self.times == 0 or self.matching not in request:
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


def frame_end(data: bytearray) -> int:
    """Where the first RESP value of `data`, a request or a reply, ends; 0 if not all is there."""
    position, missing = 0, 1
    while missing:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return 0
        kind, length = data[position : position + 1], data[position + 1 : line_end]
        position, missing = line_end + 2, missing - 1
        if kind in b"$=!" and length != b"-1":
            position += int(length) + 2
        elif kind in b"*~>":
            missing += max(int(length), 0)
        elif kind in b"%|":
            # An attribute (|) precedes the value that it is about.
            missing += 2 * int(length) + (kind == b"|")
    return position if position <= len(data) else 0


class _Side:
    """One socket of a link, with what it has not yet sent and what is not yet a whole frame."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        connection: socket.socket,
        on_frame: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open = True
        self._selector, self._socket = selector, connection
        self._on_frame, self._on_end = on_frame, on_end
        self._received, self._unsent = bytearray(), bytearray()
        self._ending = False
        selector.register(connection, selectors.EVENT_READ, self._ready)

    def send(self, data: bytes) -> None:
        if self.open:
            self._unsent += data
            self._flush()

    def end(self) -> None:
        """Close the socket once everything is sent."""
        self._ending = True
        self._flush()

    def close(self) -> None:
        if self.open:
            self.open = False
            self._selector.unregister(self._socket)
            self._socket.close()

    def _ready(self, events: int) -> None:
        if self.open and events & selectors.EVENT_WRITE:
            self._flush()
        if self.open and events & selectors.EVENT_READ:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            self._on_end()
            return
        self._received += data
        while self.open and (end := frame_end(self._received)):
            frame = bytes(self._received[:end])
            del self._received[:end]
            self._on_frame(frame)

    def _flush(self) -> None:
        if not self.open:
            return
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            self._on_end()
            return
        if self._ending and not self._unsent:
            self.close()
            return
        waiting = selectors.EVENT_WRITE if self._unsent else 0
        self._selector.modify(self._socket, selectors.EVENT_READ | waiting, self._ready)


class _Link:
    """A connection through the proxy: a client's side and a server's side."""

    def __init__(self, proxy: "Proxy", client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._awaited: deque[_Fault | None] = deque()
        self._closes_when_answered = False
        self.held_back: list[bytes] = []
        self.held_requests: list[tuple[bytes, _Fault | None]] = []
        self.client = _Side(proxy._selector, client, self._request, self._client_ended)
        self.server = _Side(proxy._selector, server, self._reply, self.client.end)

    @property
    def held(self) -> bool:
        return self.server.open and not self.client.open

    @property
    def unanswered(self) -> int:
        return len(self._awaited) if self.server.open else 0

    def cut(self) -> None:
        self.client.close()
        self.server.close()

    def release(self) -> None:
        self.client.send(b"".join(self.held_back))
        self.held_back.clear()

    def release_requests(self) -> None:
        requests, self.held_requests = self.held_requests, []
        if not requests or not self.server.open:
            return
        if not self.client.open:
            self._proxy.late_requests += len(requests)
            self._closes_when_answered = not self._proxy._holds_closes
        for frame, fault in requests:
            self._forward(frame, fault)

    def _client_ended(self) -> None:
        # What is on its way arrives, though nobody waits for it any more.
        if not self._proxy._holds_closes and not self.held_requests:
            self.server.end()

    def _request(self, frame: bytes) -> None:
        if not self.server.open:
            return
        fault = self._proxy._strike(frame)
        kind = None if fault is None else fault.kind
        if kind is _Kind.DROP_REQUEST:
            self.cut()
        elif kind is _Kind.HOLD_REQUEST:
            self.held_requests.append((frame, None))
        elif self.held_requests:
            # Requests arrive in order: behind one that is held back, all are.
            self.held_requests.append((frame, fault))
        else:
            self._forward(frame, fault)

    def _forward(self, frame: bytes, fault: _Fault | None) -> None:
        self._awaited.append(fault)
        self._proxy.requests += 1
        self._proxy.request_bytes += len(frame)
        self.server.send(frame)

    def _reply(self, frame: bytes) -> None:
        # A push of RESP3 answers no request.
        pushed = frame.startswith(b">") or not self._awaited
        fault = None if pushed else self._awaited.popleft()
        if fault is not None and fault.kind in (_Kind.DROP_REPLY, _Kind.CUT_REPLY):
            self.client.send(frame[: fault.bytes_count])
            self.client.end()
            self.server.close()
        elif fault is not None or self.held_back:
            # Replies come in order: behind one that is held back, all are.
            self.held_back.append(frame)
        else:
            self.client.send(frame)
        if self._closes_when_answered and not self._awaited:
            self.server.close()


class Proxy:
    """Forwards connections to a server and breaks them as told; runs in a thread of its own.

    When a control returns, it has happened. The controls that name a reply or a request mean
    those that contain `matching`, all of them if it is empty: the first `after` of them pass, the
    next `times` are hit (None: all). A new connection's first requests (HELLO, CLIENT) count too.

    TLS cannot be followed, nor can commands that have no reply or more than one.
    """

    host = LOOPBACK

    def __init__(self, host: str, port: int) -> None:
        self.port = free_port()
        self.connections = 0  # made so far
        self.requests = 0  # forwarded so far
        self.request_bytes = 0
        self.late_requests = 0  # forwarded so far after their client had gone
        self.addresses: set[str] = set()  # of the connections made so far, as the server sees them
        self.struck: Counter[str] = Counter()  # faults so far, by what they did
        self._target = host, port
        self._faults: list[_Fault] = []
        self._links: list[_Link] = []
        self._holds_closes = False
        self._listener: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._orders: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._bell, self._bell_push = socket.socketpair()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._bell, selectors.EVENT_READ, self._obey)
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._do(self._end)
        self._thread.join()
        self._selector.close()
        self._bell.close()
        self._bell_push.close()

    def cut(self) -> None:
        """Close every connection now, towards both sides."""
        self._do(lambda: [link.cut() for link in self._links])

    def cut_client_side(self) -> None:
        """Close every connection towards the clients; the server's side stays open, `held`.

        The server does not notice: a blocked read goes on and takes messages, which are lost.
        """
        self._do(lambda: [link.client.close() for link in self._links])

    def hold_closes(self) -> None:
        """When a client closes its connection from now on, keep the server's side open."""
        self._do(lambda: setattr(self, "_holds_closes", True))

    def close_held(self) -> None:
        """Close the server's side of connections whose client's side is closed."""
        self._do(lambda: [link.cut() for link in self._links if link.held])

    @property
    def held(self) -> int:
        """How many connections are open towards the server only."""
        return self._do(lambda: sum(link.held for link in self._links))

    @property
    def open_connections(self) -> int:
        """How many connections are open towards a client."""
        return self._do(lambda: sum(link.client.open for link in self._links))

    def drop_requests(
        self, matching: bytes = b"", *, after: int = 0, times: int | None = 1
    ) -> None:
        """Cut the connection instead of forwarding a request: the server never sees it."""
        self._add(_Fault(_Kind.DROP_REQUEST, matching, after, times))

    def drop_replies(self, matching: bytes = b"", *, after: int = 0, times: int | None = 1) -> None:
        """Forward a request, then cut the connection instead of forwarding its reply."""
        self._add(_Fault(_Kind.DROP_REPLY, matching, after, times))

    def cut_reply_after(
        self, bytes_count: int, matching: bytes = b"", *, after: int = 0, times: int | None = 1
    ) -> None:
        """Forward a request and this much of its reply, then cut the connection."""
        self._add(_Fault(_Kind.CUT_REPLY, matching, after, times, bytes_count))

    def hold_requests(
        self, matching: bytes = b"", *, after: int = 0, times: int | None = None
    ) -> None:
        """Keep back requests and all that follow on the connection, as on a slow way.

        They arrive when they are released, also if the client has closed its connection meanwhile.
        """
        self._add(_Fault(_Kind.HOLD_REQUEST, matching, after, times))

    def release_requests(self) -> None:
        """Forward the requests that were kept back, and keep back no more."""
        self._do(self._release_requests)

    @property
    def held_requests(self) -> int:
        """How many requests are kept back."""
        return self._do(lambda: sum(len(link.held_requests) for link in self._links))

    @property
    def unanswered(self) -> int:
        """How many requests were forwarded that the server may not have carried out yet."""
        return self._do(lambda: sum(link.unanswered for link in self._links))

    @property
    def armed(self) -> int:
        """How many faults are yet to strike, or may strike again."""
        return self._do(lambda: len(self._faults))

    def hold_replies(
        self, matching: bytes = b"", *, after: int = 0, times: int | None = None
    ) -> None:
        """Forward requests, keep back their replies and all that follow on the connection."""
        self._add(_Fault(_Kind.HOLD_REPLY, matching, after, times))

    def release_replies(self) -> None:
        """Send the replies that were kept back, and keep back no more."""
        self._do(self._release)

    @property
    def held_replies(self) -> int:
        """How many replies are kept back: so many requests have certainly taken effect."""
        return self._do(lambda: sum(len(link.held_back) for link in self._links))

    def refuse(self) -> None:
        """Refuse new connections, as if no server were there; leave the present ones."""
        self._do(self._close_listener)

    def accept(self) -> None:
        """Accept new connections (again)."""
        self._do(self._listen)

    def heal(self) -> None:
        """End every fault; what is cut or held stays so."""
        self._do(self._heal)

    def _strike(self, request: bytes) -> _Fault | None:
        """Return the fault that hits a request, if one does."""
        fault = next((fault for fault in self._faults if fault.strikes(request)), None)
        if fault is not None:
            self.struck[fault.kind.value] += 1
            if fault.times == 0:
                self._faults.remove(fault)
        return fault

    def _do(self, order: Callable[[], Any]) -> Any:
        done: Future[Any] = Future()
        self._orders.put((order, done))
        self._bell_push.send(b"!")
        return done.result(timeout=10)

    def _add(self, fault: _Fault) -> None:
        self._do(lambda: self._faults.append(fault))

    def _run(self) -> None:
        while self._running:
            for key, events in self._selector.select():
                key.data(events)

    def _obey(self, events: int) -> None:
        self._bell.recv(1)
        order, done = self._orders.get()
        try:
            done.set_result(order())
        except Exception as error:  # noqa: BLE001 - belongs to the thread that gave the order
            done.set_exception(error)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port))
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ, self._connect)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _connect(self, events: int) -> None:
        if self._listener is None:
            return
        try:
            client = self._listener.accept()[0]
        except BlockingIOError:
            return
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        self.connections += 1
        address, port = server.getsockname()[:2]
        self.addresses.add(f"{address}:{port}")
        self._links = [link for link in self._links if link.client.open or link.server.open]
        self._links.append(_Link(self, client, server))

    def _release(self) -> None:
        self._faults = [fault for fault in self._faults if fault.kind is not _Kind.HOLD_REPLY]
        for link in self._links:
            link.release()

    def _release_requests(self) -> None:
        self._faults = [fault for fault in self._faults if fault.kind is not _Kind.HOLD_REQUEST]
        for link in self._links:
            link.release_requests()

    def _heal(self) -> None:
        self._release()
        self._release_requests()
        self._faults.clear()
        self._holds_closes = False
        self._listen()

    def _end(self) -> None:
        self._close_listener()
        for link in self._links:
            link.cut()
        self._running = False
