# needs: fastapi
# needs: httpx
"""larder.sessions: what an application does with sessions, and what must never happen to them."""

import asyncio
import datetime

import larder
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.testclient import TestClient
from larder.sessions import Session, SessionStore


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


def test_the_life_of_a_session(cache):
    async def main():
        store = SessionStore(cache)
        session_id, session = await store.create_session("alice", {"theme": "dark", "n": [1, None]})
        assert len(session_id) == 43 and session.user_id == "alice"
        assert session.data == {"theme": "dark", "n": [1, None]}
        left = session.expires_at - datetime.datetime.now(datetime.timezone.utc)
        assert 1700 < left.total_seconds() <= 1801
        updated = await store.update_session(session_id, {"theme": "light", "é": {"a": 1}})
        assert updated.data == {"theme": "light", "n": [1, None], "é": {"a": 1}}
        assert (await store.remove_fields(session_id, "n")).data == {"theme": "light", "é": {"a": 1}}
        assert not any(session_id.encode() in key + value for key, value in cache.items())
        renewed = await store.renew_session(session_id, "bob")
        assert renewed != session_id and await store.get_session(session_id) is None
        assert (await store.get_session(renewed)).user_id == "bob"
        assert await store.delete_session(renewed) and not await store.delete_session(renewed)
        assert await store.update_session(renewed, {"back": 1}) is None
        assert await store.renew_session(renewed) is None

    run(main())


def test_all_sessions_of_a_user_end_at_once(cache):
    async def main():
        store = SessionStore(cache)
        ids = [(await store.create_session(user))[0] for user in ("a", "a", "ab", "b", "a")]
        assert await store.delete_user_sessions("a") == 3
        alive = [session_id for session_id in ids if await store.get_session(session_id)]
        assert alive == [ids[2], ids[3]]
        with pytest.raises(larder.InvalidError):
            await store.delete_user_sessions("")

    run(main())


def test_bad_ids_and_bad_data(cache):
    async def main():
        store = SessionStore(cache)
        for bad in ("", "x", "x" * 43 + "y", "é" * 43, "\0" * 43, "*" * 43):
            assert await store.get_session(bad) is None
            assert await store.update_session(bad, {}) is None and not await store.delete_session(bad)
        session_id, _ = await store.create_session("u")
        with pytest.raises(TypeError):
            await store.update_session(session_id, {"x": object()})
        with pytest.raises(ValueError, match="257 fields"):
            await store.update_session(session_id, {str(i): i for i in range(257)})
        with pytest.raises(larder.TooBigError):
            await store.update_session(session_id, {"x": "y" * 70000})
        assert (await store.get_session(session_id)).data == {}

    run(main())
    with pytest.raises(ValueError, match="same_site"):
        SessionStore(cache, same_site="perhaps")
    with pytest.raises(larder.InvalidError):
        SessionStore(cache, same_site="none", secure=False)
    with pytest.raises(ValueError, match="ttl"):
        SessionStore(cache, ttl=-1)


def test_fields_that_others_wrote_and_bytes(cache):
    """A program in C stores any bytes: what is no JSON is given as it stands."""
    fields = {"text": b"plain", "binary": b"\xff\0", "deep": b"[" * 60000, "empty": b"",
              "number": b"7", "word": b'"w"'}

    async def main():
        store = SessionStore(cache)
        session_id, _ = await store.create_session("u", {"mine": [1], "raw": b"\0raw"})
        small = {name: value for name, value in fields.items() if name != "deep"}
        assert store._sessions.update(session_id, small) is not None
        expected = {"mine": [1], "raw": b"\0raw", **small, "number": 7, "word": "w"}
        assert (await store.get_session(session_id)).data == expected
        updated = await store.update_session(session_id, {"mine": 2, "text": b"other"})
        assert updated.data == {**expected, "mine": 2, "text": b"other"}
        store._sessions.update(session_id, {"deep": fields["deep"]})
        assert (await store.get_session(session_id)).data["deep"] == fields["deep"]

    run(main())


def test_names_that_are_no_utf8_are_taken_as_they_were_given(cache):
    """A program in C names users and fields by any bytes; what Session says of them, the store takes."""
    async def main():
        store = SessionStore(cache)
        session_id = store._sessions.create(b"u\xff", {b"n\xff": b"1", b"m\xfe": b"2"})
        session = await store.get_session(session_id)
        assert (await store.update_session(session_id, session.data)).data == session.data
        first, second = session.data
        assert (await store.remove_fields(session_id, first)).data == {second: session.data[second]}
        renewed = await store.renew_session(session_id, session.user_id)
        _, own = await store.create_session(session.user_id)
        assert own.user_id == session.user_id
        assert await store.delete_user_sessions(session.user_id) == 2
        assert await store.get_session(renewed) is None

    run(main())


def test_an_id_that_has_no_utf8_is_a_miss(cache):
    """JSON from a client can hold half a surrogate pair."""
    async def main():
        store = SessionStore(cache)
        bad = "\ud800" * 43
        assert await store.get_session(bad) is None and await store.update_session(bad, {}) is None
        assert await store.renew_session(bad) is None and not await store.delete_session(bad)

    run(main())


def test_a_life_beyond_the_year_9999(cache):
    async def main():
        store = SessionStore(cache, ttl=10**12)
        session_id, session = await store.create_session("u")
        assert session.expires_at.year == 9999
        assert (await store.get_session(session_id)).expires_at.tzinfo is datetime.timezone.utc

    run(main())


def test_a_prefix_and_the_cookies_name(cache):
    SessionStore(cache, prefix="x" * 64)
    with pytest.raises(larder.TooBigError, match="prefix of sessions of 65 bytes: the limit is 64"):
        SessionStore(cache, prefix="x" * 65)
    # one default for all languages
    assert SessionStore(cache).cookie(None).startswith("session_id=;")
    assert larder._larder.session_cookie(None).startswith("session_id=;")
    with pytest.raises(larder.InvalidError):
        SessionStore(cache, cookie="a;b")


def test_the_dependency_is_one_and_can_be_overridden(cache):
    app, store = FastAPI(), SessionStore(cache)

    @app.get("/profile")
    async def profile(session: Session = Depends(store.required)):
        return session.user_id

    assert store.required is store.required
    assert TestClient(app).get("/profile").status_code == 401
    app.dependency_overrides[store.required] = lambda: Session(b"fake", 0.0, 1.0, {})
    assert TestClient(app).get("/profile").json() == "fake"


def test_an_application(cache):
    app, store = FastAPI(), SessionStore(cache, ttl=600)

    @app.post("/login")
    async def login(response: Response, request: Request, username: str, password: str):
        if password != "right":
            raise HTTPException(401)
        session_id, session = await store.create_session(username, {"username": username})
        store.set_cookie(response, session_id)
        return {"user_id": session.user_id}

    @app.post("/logout")
    async def logout(response: Response, request: Request, session: Session = Depends(store.required)):
        await store.delete_session(store.id_of(request))
        store.delete_cookie(response)
        return {}

    @app.get("/profile")
    async def profile(session: Session = Depends(store.required)):
        return {"user_id": session.user_id, "data": session.data}

    client = TestClient(app, base_url="https://testserver")
    assert client.get("/profile").status_code == 401
    assert client.post("/login?username=a&password=wrong").status_code == 401
    cookie = client.post("/login?username=alice&password=right").headers["set-cookie"]
    for part in ("session_id=", "HttpOnly", "Secure", "SameSite=Lax", "Max-Age=600", "Path=/"):
        assert part in cookie
    assert client.get("/profile").json() == {"user_id": "alice", "data": {"username": "alice"}}
    stolen = cookie.split(";")[0]
    assert "Max-Age=0" in client.post("/logout").headers["set-cookie"]
    client.cookies.clear()
    assert client.get("/profile", headers={"Cookie": stolen}).status_code == 401
    assert client.get("/profile", headers={"Cookie": "session_id=forged"}).status_code == 401
