# needs: fastapi
# needs: httpx
"""No user is ever answered with another's page, whatever the requests look like."""

import itertools
import random

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.testclient import TestClient
from larder.fastapi import FastAPILarder, cache as cached, cache_put


@pytest.fixture
def client(cache):
    app = FastAPI()
    FastAPILarder(app, cache).caching()

    def who(request: Request):
        """What the page is made of: everything that may tell a user."""
        return [request.headers.get("authorization"), request.headers.get("cookie")]

    for path, private in (("/page", False), ("/private", True)):
        @app.get(path, dependencies=[Depends(cached(ttl=600, private=private))])
        def page(request: Request):
            return who(request)

    @app.get("/vary", dependencies=[Depends(cached(ttl=600))])
    def vary(request: Request, response: Response):
        response.headers["Vary"] = "X-User, Accept-Language"
        return [request.headers.get("x-user"), request.headers.get("accept-language")]

    @app.get("/said-private", dependencies=[Depends(cached(ttl=600))])
    def said_private(request: Request, response: Response):
        response.headers["Cache-Control"] = "private, max-age=600"
        return [request.headers.get("x-user")]

    @app.get("/sets-cookie", dependencies=[Depends(cached(ttl=600))])
    def sets_cookie(request: Request, response: Response):
        response.set_cookie("session", request.headers.get("x-user") or "none")
        return [request.headers.get("x-user")]

    @app.put("/page", dependencies=[Depends(cache_put(ttl=600))])
    def put(request: Request):
        return who(request)

    return TestClient(app)


USERS = [
    {},
    {"Authorization": "Bearer alice"},
    {"Authorization": "Bearer bob"},
    {"Authorization": "bearer alice"},
    {"Cookie": "session=alice"},
    {"Cookie": "session=bob"},
    {"Cookie": "session=alice; theme=dark"},
    {"Authorization": "Bearer alice", "Cookie": "session=bob"},
    {"Authorization": "Bearer bob", "Cookie": "session=alice"},
    {"Authorization": ""},
    {"Cookie": ""},
]


def ask(client, path, headers, method="GET"):
    client.cookies.clear()
    response = client.request(method, path, headers=headers)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("path", ["/page", "/private"])
def test_credentials_in_every_order(client, path):
    for first, second in itertools.permutations(USERS, 2):
        for headers in (first, second, first):
            got = ask(client, path, headers).json()
            assert [value or None for value in got] == [
                headers.get("Authorization") or None, headers.get("Cookie") or None]


def test_credentials_at_random(client):
    generator = random.Random(7)
    hits = 0
    for _ in range(600):
        headers = dict(generator.choice(USERS))
        extra = generator.choice(
            [{}, {"Cache-Control": "no-cache"}, {"Cache-Control": "max-age=5"},
             {"Cache-Control": "only-if-cached, max-stale=9999"}, {"Cache-Control": "no-store"}])
        method = "PUT" if generator.random() < 0.1 else "GET"
        client.cookies.clear()
        response = client.request(method, "/page", headers={**headers, **extra})
        hits += response.headers.get("x-redis-cache") == "HIT"
        if response.status_code == 504:  # asked for nothing but the cache
            continue
        assert [value or None for value in response.json()] == [
            headers.get("Authorization") or None, headers.get("Cookie") or None], (method, headers, extra)
    assert hits > 50  # and it is a cache


def test_an_etag_of_another_user_is_not_a_304(client):
    alice = {"Authorization": "Bearer alice"}
    etag = ask(client, "/page", alice).headers["etag"]
    got = ask(client, "/page", {"Authorization": "Bearer bob", "If-None-Match": etag})
    assert got.json() == ["Bearer bob", None]


def test_vary_private_and_set_cookie(client):
    users = ["alice", "bob", None, "alice", "bob"]
    languages = ["de", "fr"]
    for user, language in itertools.product(users, languages):
        headers = {"Accept-Language": language, **({"X-User": user} if user else {})}
        assert ask(client, "/vary", headers).json() == [user, language]
        for path in ("/said-private", "/sets-cookie"):
            assert ask(client, path, headers).json() == [user]


def test_the_same_user_hits(client):
    for headers in USERS[1:3] + USERS[4:6]:
        assert ask(client, "/page", headers).headers["x-redis-cache"] == "MISS"
        assert ask(client, "/page", headers).headers["x-redis-cache"] == "HIT"


def test_every_page_of_users_says_so_to_the_caches_behind(client):
    """Also the one of nobody in particular: a browser has it still when its user has logged in."""
    def varies(response):
        return sorted(name.strip().lower() for name in response.headers["vary"].split(","))

    @client.app.get("/tagged", dependencies=[Depends(cached(ttl=600))])
    def tagged(response: Response):
        response.headers["ETag"], response.headers["Vary"] = '"t"', "Accept, cookie"

    @client.app.get("/public", dependencies=[Depends(cached(ttl=600))])
    def public(response: Response):
        response.headers["Cache-Control"] = "public"

    for headers in USERS:
        for state in ("MISS", "HIT"):
            for path, others in (("/page", []), ("/private", []), ("/vary", ["accept-language", "x-user"]),
                                 ("/tagged", ["accept"])):
                response = ask(client, path, headers)
                assert response.headers["x-redis-cache"] == state
                assert varies(response) == sorted(["authorization", "cookie", *others]), (path, headers)
        client.cookies.clear()
        response = client.get("/tagged", headers={**headers, "If-None-Match": '"t"'})
        assert response.status_code == 304 and varies(response) == ["accept", "authorization", "cookie"]
        assert "vary" not in ask(client, "/public", headers).headers  # is everybody's
