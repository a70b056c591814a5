"""SessionStore: sessions of users, larder_session.h for asyncio programs.

    sessions = SessionStore(larder.Map("sessions"))

    session_id, session = await sessions.create_session("alice", {"theme": "dark"})
    sessions.set_cookie(response, session_id)

    @app.get("/profile")
    async def profile(session: Session = Depends(sessions.required)): ...

An id is 256 bits of the kernel's; what is stored, logged or told stands under its digest. A session
lives ttl seconds after its last use. Changes of one session follow one another, and an update that
races a deletion never brings it back. Sessions want a map of their own: a full map evicts.
"""

import asyncio
import datetime
import functools
import json
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, TypeVar, Union

import larder
from larder import _larder

_T = TypeVar("_T")
_TRIES = 100  # of a busy gate, a few milliseconds each


class Session:
    """What a session is at one moment; changing it changes nothing in the store.

    data: the fields, JSON decoded. A field that is no JSON, as programs in C may write them, is its
    bytes; bytes given to create and update are stored as they are.
    """

    __slots__ = ("user_id", "created_at", "expires_at", "data")

    def __init__(self, user: bytes, created: float, expires: float, fields: Dict[bytes, bytes]):
        self.user_id = user.decode("utf-8", "surrogateescape")
        self.created_at = _instant(created)
        self.expires_at = _instant(expires)
        self.data: Dict[str, Any] = {
            name.decode("utf-8", "surrogateescape"): _decode(value) for name, value in fields.items()
        }


def _instant(seconds: float) -> datetime.datetime:
    """A life that ends after the year 9999, which is beyond datetime, ends with it."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError):
        return datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)


def _bytes(text: Any) -> Any:
    """A name or user as C has it; also one that is no UTF-8 and was given out by Session."""
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _id(session_id: Any) -> Any:
    """Ids come from clients: text that has no UTF-8 (JSON can hold it) is no id, and no error."""
    return session_id.encode("utf-8", "replace") if isinstance(session_id, str) else session_id


def _encode(data: Mapping[str, Any]) -> Dict[bytes, bytes]:
    return {
        _bytes(name): bytes(value) if isinstance(value, (bytes, bytearray, memoryview))
        else json.dumps(value, separators=(",", ":")).encode()
        for name, value in data.items()
    }


def _decode(value: bytes) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


class SessionStore:
    """prefix: of the keys, 64 bytes at most; an empty one is "session:". cookie, path, domain, secure, http_only, same_site ("lax", "strict", "none"): of the cookie."""

    def __init__(
        self,
        cache: "larder.Map",
        ttl: Union[int, float, datetime.timedelta] = 1800,
        prefix: str = "session:",
        *,
        max_lifetime: Union[int, float, datetime.timedelta] = 0,
        cookie: str = "session_id",
        path: str = "/",
        domain: Optional[str] = None,
        secure: bool = True,
        http_only: bool = True,
        same_site: str = "lax",
    ) -> None:
        same = {"lax": 0, "strict": 4, "none": 8}
        if same_site.lower() not in same:
            raise ValueError(f"same_site: lax, strict or none, not {same_site!r}")
        self._sessions = _larder.Sessions(
            cache.quick(), ttl=ttl, max_lifetime=max_lifetime, prefix=prefix.encode())
        self._sessions.get("")  # a prefix that is too long, or times that are, show here
        self._cookie = dict(
            name=cookie, path=path, domain=domain, max_age=ttl,
            flags=(0 if secure else 1) | (0 if http_only else 2) | same[same_site.lower()])
        _larder.session_cookie(None, **self._cookie)  # a mistake shows here

    async def _insist(self, call: Callable[[], _T]) -> _T:
        """A session is not a page: a gate that is busy is tried again, without holding the loop up."""
        for _ in range(_TRIES):
            try:
                return call()
            except larder.BusyError:
                await asyncio.sleep(0.005)
        return call()

    async def create_session(
        self, user_id: str, initial_data: Optional[Mapping[str, Any]] = None
    ) -> Tuple[str, Session]:
        """A new session of a user ("": of nobody yet); its id, a secret, and the session."""
        fields = _encode(initial_data or {})
        session_id = await self._insist(lambda: self._sessions.create(_bytes(user_id), fields))
        session = await self.get_session(session_id)
        if session is None:
            raise larder.FullError("the map is so small that a new session was evicted at once")
        return session_id, session

    async def get_session(self, session_id: str) -> Optional[Session]:
        """The session, its life extended; None: there is none, or not any more."""
        found = self._sessions.get(_id(session_id))
        return None if found is None else Session(*found)

    async def update_session(self, session_id: str, data: Mapping[str, Any]) -> Optional[Session]:
        """Merge; the session with all changes, or None: there is none."""
        fields = _encode(data)
        found = await self._insist(lambda: self._sessions.update(_id(session_id), fields))
        return None if found is None else Session(*found)

    async def remove_fields(self, session_id: str, *names: str) -> Optional[Session]:
        """The session without these fields, or None: there is none."""
        fields = {_bytes(name): None for name in names}
        found = await self._insist(lambda: self._sessions.update(_id(session_id), fields))
        return None if found is None else Session(*found)

    async def renew_session(self, session_id: str, user_id: Optional[str] = None) -> Optional[str]:
        """The same session under a new id, at each login; the old id is worth nothing then."""
        return await self._insist(lambda: self._sessions.renew(_id(session_id), _bytes(user_id)))

    async def delete_session(self, session_id: str) -> bool:
        """Whether it was there."""
        return self._sessions.delete(_id(session_id))

    async def delete_user_sessions(self, user_id: str) -> int:
        """All of a user's, at once; how many there were."""
        return self._sessions.delete_user(_bytes(user_id))

    # ---- Cookies, for responses and requests of Starlette

    def cookie(self, session_id: Optional[str]) -> str:
        """The value of a Set-Cookie header; None takes the browser's cookie away."""
        return _larder.session_cookie(session_id, **self._cookie)

    def set_cookie(self, response: Any, session_id: str) -> None:
        response.headers.append("set-cookie", self.cookie(session_id))

    def delete_cookie(self, response: Any) -> None:
        response.headers.append("set-cookie", self.cookie(None))

    def id_of(self, request: Any) -> Optional[str]:
        """The id in a request's cookies, or None."""
        header = b"; ".join(
            value for name, value in request.scope["headers"] if name.lower() == b"cookie")
        return _larder.session_id(header, self._cookie["name"].encode())

    async def optional(self, request: Any) -> Optional[Session]:
        """The request's session, or None."""
        session_id = self.id_of(request)
        return None if session_id is None else await self.get_session(session_id)

    @functools.cached_property
    def required(self) -> Callable[..., Any]:
        """A dependency of FastAPI's, always the same one: the request's session, or 401.

            @app.get("/profile")
            async def profile(session: Session = Depends(sessions.required)): ...

        A test overrides it: app.dependency_overrides[sessions.required] = lambda: Session(...).
        """
        from fastapi import HTTPException, Request

        async def current_session(request: Request) -> Session:
            session = await self.optional(request)
            if session is None:
                raise HTTPException(401, "no session, or one that has ended")
            return session

        return current_session
