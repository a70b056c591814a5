"""Whole responses in a store, by liblarder's HTTP rules: what a request finds, and what becomes of an
answer. Pure of any framework but for the shape of ASGI's headers; the routes' dependencies and the
middleware are made of this.
"""

import asyncio
import time
import urllib.parse
from typing import Any, Awaitable, Dict, List, Optional, Set, Tuple

from . import _larder
from ._store import bypassed

Headers = List[Tuple[bytes, bytes]]
Answer = Tuple[int, Headers, bytes]

_LOOKS = 100  # how often it looks again, should all the pages that it waits for be others'
_NOTE: Dict[str, Any] = {"ttl": 10.0}  # how long the place of a PUT's answer is kept for it
_FAILURES = 2  # pages of others that came to nothing, after which whoever waits makes its own
_WAIT = 10.0  # seconds that a request waits for another's page before it makes its own

# Where a note stands, a PUT's page is about to come, or the note goes: a moment later, and on other hosts
# when Redis has brought it. There is no lease to wait for, and nothing that tells of either; but if all
# who come meanwhile made the page, a PUT would cost the origin dozens. So each looks again after so many
# seconds, then makes it: the PUT's process may have died, or Redis.
_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _path_of(scope: Any) -> bytes:
    """The path as it came, in percent encoding. Servers need not give that; and what a middleware has
    made of it (of the host, say: a tenant's pages) is another page, though it came as the same."""
    path, root = scope["path"], scope.get("root_path", "")
    raw = bytes(scope.get("raw_path") or b"").split(b"?", 1)[0]
    if raw:
        came = raw.decode("latin-1")
        if "%" in came:
            came = urllib.parse.unquote(came)
            path = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # as that does
        if came == path or came == root + path:
            return raw
        path = scope["path"]
    return urllib.parse.quote(root + path, errors="surrogateescape").encode()


def is_somebody(scope: Any) -> bool:
    """Whether a middleware knows the user by something else than the credentials of the request that
    the rules look at: a certificate, a header of its own."""
    if not getattr(scope.get("user"), "is_authenticated", False):
        return False
    return not any(name in (b"authorization", b"cookie") for name, _ in scope["headers"])


def parse(scope: Any, method: Optional[bytes] = None, headers: Optional[Headers] = None) -> Any:
    """The request of an ASGI scope."""
    return _larder.HttpRequest(
        method or scope["method"].encode(),
        _path_of(scope),
        scope.get("query_string", b""),
        scope["headers"] if headers is None else headers,
    )


class Pending:
    """A request that found nothing: what its answer will be stored as."""

    def __init__(
        self,
        store: Any,
        policy: Any,
        request: Any,
        key: bytes,
        mark: Optional[str],
        put: bool = False,
    ) -> None:
        self.store = store
        self.cache = getattr(store, "cache", None)  # None: a Redis client of a test, or no store
        self.policy = policy
        self.request = request
        self.key = key
        self.mark = mark
        self.found: Any = None  # what stands under the key itself
        self.began = now_ms()
        self.lease: Any = None
        self.lease_key = key
        self.leads = True  # False: a HEAD, whose answer is nobody's page: no other is to wait for it
        self.put = put  # the answer of a PUT, to be stored as what GET gives: 200
        self.noted = False  # the note of forget() stands
        self.vary: Tuple[bytes, ...] = ()  # the fields that the answer varies by, beside its own
        self.refused = False  # the answer is not for the cache, whatever it looks like
        self.final: Optional[Final] = None  # where it leaves the application, if that is watched
        self.ready: Any = None  # what is to be stored then
        self.waited: Dict[bytes, int] = {}  # how many fills of others were waited for
        self.pauses = 0  # how often it has looked again where a note stands
        self.asked: Set[bytes] = set()  # what Redis was asked for
        # What stood there when the answer was begun. It is written with a lease, or over just that:
        # anything else would bring back what was invalidated meanwhile.
        self.versions: Dict[bytes, Any] = {}

    async def look(self) -> Any:
        """The HttpStored that is this request's, or None; and where it would stand."""
        self.lease_key = self.key
        self.found = await self._get(self.key)
        if self.found is None:
            return None
        outcome, variant = self.request.select(self.policy, self.key, self.found)
        if outcome == _larder.HTTP_CHOSEN:
            return self.found
        if outcome != _larder.HTTP_VARIANT:
            return None
        self.lease_key = variant
        stored = await self._get(variant)
        if stored is None:
            return None
        outcome, _ = self.request.select(self.policy, self.key, stored)
        return stored if outcome == _larder.HTTP_CHOSEN else None

    async def _get(self, key: bytes) -> Any:
        if self.cache is not None:
            data = self.store.peek(key)
        else:
            data = await self.store.safely("get", lambda: self.store.get(key), None)
        return None if data is None else _larder.http_decode(data)

    async def find(self) -> Optional[Answer]:
        """The answer out of the cache, or None: make one, then finish() or give_up().

        Of all requests of the host that miss at once, one is told None; the others wait for it, at
        most so long, without holding their loop up.
        """
        try:
            return await self._find()
        except _larder.Error as error:
            bypassed(error)
            return None

    async def _find(self) -> Optional[Answer]:
        deadline = time.monotonic() + _WAIT
        for _ in range(_LOOKS):
            stored = await self.look()
            now = now_ms()
            action, _, _ = self.request.serve(self.policy, stored, now)
            if action in (_larder.HTTP_SERVE, _larder.HTTP_SERVE_STALE):
                hit = action == _larder.HTTP_SERVE
                status = _larder.HTTP_HIT if hit else _larder.HTTP_STALE_HIT
                return self.request.answer(self.policy, stored, status, now)
            if action == _larder.HTTP_UNAVAILABLE:
                return 504, [(b"cache-control", b"no-store")], b""
            if stored is not None or not await self._take_lease(deadline):
                break
        self.began = now_ms()
        await self.see()
        return None

    async def see(self) -> None:
        """Note what stands there now: the answer is begun."""
        for key in {self.key, self.lease_key}:
            if self.lease is None or key != self.lease_key:
                self.versions[key] = await self._version(key)

    async def _version(self, key: bytes) -> Any:
        return (await self.store.safely("get", lambda: self.store.version(key), (None, None)))[1]

    async def see_put(self) -> None:
        """The same for a PUT. Where nothing stands, two instants without a page look alike although
        one may have been written and evicted between: so a version is drawn, as for a fill."""
        await self.see()
        if self.versions.get(self.key) is None:
            self.lease = self._lease_of(self.key)
            self._abandon(self.lease, False)  # it keeps its version; nobody waits for an endpoint

    async def forget(self) -> None:
        """Before the answer of a PUT goes out: the old page, and with it all its variants, gives way
        to a note that there is none, which this answer may replace. Where anything was written or
        invalidated since the endpoint began, nobody knows whose answer is the newer one: then this one
        is not stored either."""
        lease, self.lease = self.lease, None
        seen, noted = self.versions.pop(self.key, None), False
        if lease is not None and self._fill(lease, None, _NOTE):
            seen = await self._version(self.key)  # drawn before the endpoint; the next is of now
        if seen is not None and self.cache is not None:
            note = dict(_NOTE, negative=True, **({} if self.mark is None else {"group": self.mark}))
            noted = await self.store.safely(
                "put", lambda: self.store.swap(self.key, None, seen, note), False)
        if noted:
            self.noted = True
            self.versions[self.key] = await self._version(self.key)
        else:
            await self.store.safely("put", lambda: self.store.delete(self.key), False)

    def _remove_note(self) -> None:
        """The answer of the PUT is not to come. All who GET the page would take the note for a page that
        is there, and make theirs without waiting for each other."""
        if self.noted:
            self.noted = False
            self.store.at_once("put", lambda: self.cache.quick().delete(self.key), False)

    def _lease_of(self, key: bytes) -> Any:
        """A lease of a key that is not there, or None; and what version is."""
        if self.cache is None:
            return None
        try:
            outcome, entry, lease = self.cache.quick().lease_acquire(key)
        except (_larder.Error, ValueError, OSError):
            return None
        if outcome in (_larder.FILL, _larder.REFRESH):
            return lease
        if outcome == _larder.OK and entry is not None:
            self.versions[key] = entry.version
        return None

    async def _take_lease(self, deadline: float) -> bool:
        """Whether to look again: another's lease has ended, Redis had it, or a PUT's page may have come.
        False: make the page yourself."""
        key = self.lease_key
        if self.cache is None:
            return False  # everybody makes his own
        try:
            watch = self.cache.watch()  # before the lease: what it waits for must find it
            outcome, _, lease = self.cache.quick().lease_acquire(key)
            if outcome in (_larder.FILL, _larder.REFRESH):
                if self.leads:
                    self.lease = lease
                else:
                    self._abandon(lease, False)
                return await self._is_in_redis(key)
            if outcome == _larder.ABSENT:
                return await self._pause(deadline)
            if outcome != _larder.WAIT:
                return outcome == _larder.OK  # it came in this moment
            waited = self.waited.get(key, 0)
            if waited == _FAILURES:
                return False  # one after another, failures would add up to the deadline
            self.waited[key] = waited + 1
            ended = await watch.wait(lease.ended, deadline - time.monotonic())
            return ended == _larder.OK
        except (_larder.Error, ValueError, OSError):
            return False

    async def _pause(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if self.pauses == len(_PAUSES) or left <= 0:
            return False
        self.pauses += 1
        await asyncio.sleep(min(_PAUSES[self.pauses - 1], left))
        return True

    async def _is_in_redis(self, key: bytes) -> bool:
        """Of all who miss the page, the one with the lease asks for it; the lease ends where another
        host has made it. Asked once: what does not help (of another Vary, say) is not fetched again.
        What Redis had may be dead here (its group was evicted a moment ago): then the lease stays, or
        all who wait for it would take that for a failure, and soon make the page each for himself."""
        if key in self.asked or self.store.read_through <= 0:
            return False
        self.asked.add(key)
        found = False
        try:
            found = await self.cache.ask_redis(key, self.store.read_through)
        except (_larder.Error, OSError):
            pass
        except BaseException:
            self.give_up()
            raise
        if not found or self.store.peek(key) is None:
            return False
        self.give_up()
        return True

    # ---- The answer

    async def finish(
        self, status: int, headers: Headers, body: bytes, open_ended: bool = False
    ) -> Answer:
        """Store what the rules allow; the answer with the headers that the rules add."""
        lease, self.lease = self.lease, None
        if self.vary:
            headers = [*headers, (b"vary", b", ".join(self.vary))]
        if 200 <= status < 300 and _sets_a_cookie(headers) and not _is_ones_own(headers):
            headers = _not_for_caches(headers)  # as where a middleware around this sets it
        kept = 200 if self.put and status in (201, 202, 203) else status
        now = now_ms()
        try:
            if self.refused or (self.put and status in (204, 205)):  # those have no page
                self._end(lease)
                return self.request.answer_unstored(
                    self.policy, status, headers, body, _larder.HTTP_MISS, now
                )
            _, writes, stored = self.request.store(
                self.policy, kept, headers, body, self.key, self.found, self.began, now, 0, open_ended
            )
            if not writes:
                self._end(lease)
            else:
                held, lease = lease, None
                if self.final is None:
                    await self._write(writes, held)
                else:
                    self.ready = writes, held
                    self.final.pending.append(self)
            if not writes or stored is None:
                return self.request.answer_unstored(
                    self.policy, status, headers, body, _larder.HTTP_MISS, now
                )
            answer = self.request.answer(self.policy, stored, _larder.HTTP_MISS, now)
        except _larder.Error as error:
            self._end(lease)
            bypassed(error)
            return status, headers, body
        return (status, *answer[1:]) if kept != status else answer

    async def store_ready(self) -> None:
        """What finish() has left for the answer's last moment."""
        if self.ready is not None:
            (writes, lease), self.ready = self.ready, None
            try:
                await self._write(writes, lease)
            except _larder.Error as error:
                bypassed(error)

    def drop_ready(self) -> None:
        if self.ready is not None:
            (_, lease), self.ready = self.ready, None
            self._end(lease)

    async def _write(self, writes: Any, lease: Any) -> None:
        """All of them, in their order, up to the first that something newer stands against."""
        leases = {self.lease_key: lease}
        for key, _, _ in writes:  # all before the first: none may fall between two
            if key not in leases and key not in self.versions:
                leases[key] = self._lease_of(key)  # a variant that nobody knew of
        try:
            for key, value, policy in writes:
                if not await self._put(key, value, policy, leases.pop(key, None)):
                    if self.put and key in self.versions:  # what came between may be older
                        await self.store.safely("put", lambda: self.store.delete(self.key), False)
                    break
        finally:
            for left in leases.values():
                self._abandon(left, False)

    async def _put(self, key: bytes, value: bytes, policy: Any, lease: Any) -> bool:
        if lease is not None:
            return self._fill(lease, value, policy)
        if self.cache is None:  # a Redis client of a test
            await self.store.safely(
                "set", lambda: self.store.set(key, value, policy, self.mark), None
            )
            return True
        version = self.versions.get(key)
        if version is None:
            return False
        marked = policy if self.mark is None else {**policy, "group": self.mark}
        return await self.store.safely(
            "set", lambda: self.store.swap(key, value, version, marked), False
        )

    def _fill(self, lease: Any, value: Optional[bytes], policy: Any) -> bool:
        return self.store.at_once(
            "fill", lambda: lease.fill(value, group=self.mark, **policy), False)

    def give_up(self, skip: bool = False) -> None:
        """There is no answer for the cache: another may make one."""
        lease, self.lease = self.lease, None
        self._end(lease, skip)

    def _end(self, lease: Any, skip: bool = True) -> None:
        """Nothing is stored: by default nobody need wait for such an answer."""
        self._abandon(lease, skip)
        self._remove_note()

    @staticmethod
    def _abandon(lease: Any, skip: bool) -> None:
        if lease is not None:
            try:
                lease.abandon(skip)
            except (_larder.Error, ValueError):
                pass


FINAL = "larder.final"  # where in a scope the Final of the request is


class Final:
    """An answer where it leaves the application, whatever other middleware made of it: what a Capture
    has ready is stored now, unless a cookie goes out with it. The cookie of a session whose middleware
    is around even this is out of sight: there the session itself tells."""

    __slots__ = ("send", "pending", "_session")

    def __init__(self, scope: Any, send: Any) -> None:
        self.send = send
        self.pending: List[Pending] = []
        self._session = scope.get("session")

    def __call__(self, message: Any) -> Awaitable[None]:
        if self.pending and message["type"] == "http.response.start":
            return self._store(message)
        return self.send(message)  # type: ignore[no-any-return]

    async def _store(self, message: Any) -> None:
        if self._session or _sets_a_cookie(message["headers"]):
            self.end()
            message = dict(message, headers=_not_for_caches(message["headers"]))
        while self.pending:
            await self.pending.pop(0).store_ready()
        await self.send(message)

    def end(self) -> None:
        """The application has returned, or raised. What was ready points to this, and is let go of: the
        two would keep each other, and the page, until the collector comes."""
        while self.pending:
            self.pending.pop().drop_ready()


def _sets_a_cookie(headers: Any) -> bool:
    for name, _ in headers:
        if len(name) == len(b"set-cookie") and bytes(name).lower() == b"set-cookie":
            return True
    return False


def _is_ones_own(headers: Any) -> bool:
    said = b",".join(bytes(value) for name, value in headers if bytes(name).lower() == b"cache-control")
    return any(part.split(b"=")[0].strip().lower() in (b"private", b"no-store") for part in said.split(b","))


def _not_for_caches(headers: Any) -> Headers:
    """How long the page would have been good says the answer of a page that is kept."""
    kept = [(bytes(name), bytes(value)) for name, value in headers]
    return [*(pair for pair in kept if pair[0].lower() != b"cache-control"),
            (b"cache-control", b"private, no-cache")]


class Capture:
    """An answer on its way to the server: held back while it may be stored, as long as that takes.

    What is larger than the limit, or comes in pieces without saying its length, goes on as it
    comes and is not stored.
    """

    __slots__ = ("send", "limit", "pending", "after", "final", "_bypassed", "_start", "_body", "_through")

    def __init__(self, send: Any, limit: int) -> None:
        self.send = send
        self.limit = limit
        self.pending: Optional[Pending] = None
        self.after: List[Any] = []  # what is to be done before a good answer goes out
        self.final: Optional[Final] = None
        self._bypassed: Any = None
        self._start: Any = None
        self._body = bytearray()
        self._through = False

    def bypass(self, policy: Any) -> None:
        """The answer is not for the cache; it says so."""
        self._bypassed = policy

    def fail(self) -> None:
        """The endpoint, or what stands before it, has raised: nothing is stored, deleted or replaced,
        though a handler may make a good answer of that."""
        self.after = []
        if self.pending is not None:
            self.pending.refused = True

    async def __call__(self, message: Any) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            # A redirect is no error either (RFC 9111, 4.4): a form that was posted, say.
            if self.after and 200 <= message["status"] < 400:
                for action in self.after:
                    await action()
            self.after = []
            if self.pending is None:
                self._through = True
                if self._bypassed is not None:
                    _mark(message, self._bypassed, _larder.HTTP_BYPASSED)
                await self.send(message)
            else:
                self._start = message
        elif kind == "http.response.body" and not self._through:
            await self._take(message)
        else:
            if self._start is not None and not self._through:
                await self._go_through()  # it stands for a body: a file, perhaps
            await self.send(message)

    async def _take(self, message: Any) -> None:
        assert self._start is not None and self.pending is not None
        body, more = message.get("body", b""), message.get("more_body", False)
        self._body += body
        headers = self._start["headers"]
        lengths = [bytes(value).strip() for name, value in headers if bytes(name).lower() == b"content-length"]
        if more and (len(self._body) > self.limit or not lengths):
            await self._go_through()
        elif not more and lengths and lengths != [b"%d" % len(self._body)]:
            # Cut short: nobody is to take it for whole. Or a HEAD's: the length of what a GET would give.
            await self._go_through(more=False)
        elif not more:
            await self._finish()

    async def _go_through(self, more: bool = True) -> None:
        assert self.pending is not None
        self.pending.give_up(skip=True)
        _mark(self._start, self.pending.policy, _larder.HTTP_MISS)
        self._through = True
        await self.send(self._start)
        if self._body or not more:
            await self.send(
                {"type": "http.response.body", "body": bytes(self._body), "more_body": more}
            )

    async def _finish(self) -> None:
        assert self.pending is not None
        pending, self.pending = self.pending, None
        pending.final = self.final
        status, headers, body = await pending.finish(
            self._start["status"], [tuple(pair) for pair in self._start["headers"]], bytes(self._body)
        )
        self._start["status"] = status
        self._start["headers"] = with_length(status, headers, body)
        self._through = True
        await self.send(self._start)
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    def end(self) -> None:
        """The application has returned, or raised."""
        if self.pending is not None:
            self.pending.give_up()
            self.pending.versions = {}  # where another takes its place, forget() only removes the page
            self.pending = None


_UNCONDITIONAL = _larder.HttpRequest(b"GET", b"/", b"", [])


def _mark(start: Any, policy: Any, cache_status: int) -> None:
    """Add what the rules add to an answer whose body is not known yet. It stays what the application
    made of the request's conditions: the body is on its way."""
    headers = [(bytes(name), bytes(value)) for name, value in start["headers"]]
    lengths = [pair for pair in headers if pair[0].lower() == b"content-length"]
    try:
        _, marked, _ = _UNCONDITIONAL.answer_unstored(
            policy, start["status"], headers, b"", cache_status, now_ms()
        )
    except _larder.Error as error:
        bypassed(error)
        return
    kept = [pair for pair in marked if pair[0].lower() != b"content-length"]
    start["headers"] = kept + lengths


def with_length(status: int, headers: Headers, body: bytes) -> Headers:
    """Content-Length is the front end's; 204 and 304 have none."""
    kept = [pair for pair in headers if pair[0].lower() != b"content-length"]
    if status not in (204, 304) and status >= 200:
        kept.append((b"content-length", b"%d" % len(body)))
    return kept


async def send_answer(send: Any, answer: Answer, head: bool = False) -> None:
    """One that came out of the cache."""
    status, headers, body = answer
    await send({"type": "http.response.start", "status": status,
                "headers": with_length(status, headers, body)})
    await send({"type": "http.response.body", "body": b"" if head else body, "more_body": False})


__all__ = ["Answer", "Capture", "FINAL", "Final", "Headers", "Pending", "now_ms", "parse", "send_answer"]
