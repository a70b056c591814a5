# needs: fastapi
# needs: httpx
# needs: uvicorn
# needs: gunicorn
"""examples/fastapi/patterns.py, each pattern in it, under gunicorn with four uvicorn workers: without
larderd, with larderd and Redis, and with a Redis that is killed in the middle of each test. What one
worker has made all have, and the origin is asked as often as by one."""

import asyncio
import os
import pathlib
import shutil
import tempfile
import time

import pytest

from served import WORKERS, Redis, Served, run, until_redis_is


class Site(Served):
    def __init__(self, directory, mode):
        self.mode = mode
        self.redis = None
        super().__init__(directory, "patterns", delay=0.02)
        if mode != "alone":
            self.redis = Redis(directory, "patterns", "patterns-sessions")

    async def begin(self, client):
        if self.redis is not None:
            self.redis.start()
            await until_redis_is(client, "connected")

    def middle(self):
        """Of a test: where Redis is to die, it does so now."""
        if self.mode == "killed":
            self.redis.kill()

    def end(self):
        if self.redis is not None:
            self.redis.stop()
        self.stop()


@pytest.fixture(scope="module", params=["alone", "redis", "killed"])
def site(request):
    directory = pathlib.Path(
        tempfile.mkdtemp(prefix="patterns-", dir=os.environ.get("LARDER_TEST_DIR") or "/dev/shm"))
    running = Site(directory, request.param)
    yield running
    running.end()
    shutil.rmtree(directory, ignore_errors=True)


class Client:
    """Asks one worker, or all of them."""

    def __init__(self, site, client):
        self.site = site
        self.client = client

    async def ask(self, path, method="GET", status=200, **options):
        response = await self.client.request(method, path, **options)
        assert response.status_code == status, response.text
        self.client.cookies.clear()
        return response

    async def put(self, path, **options):
        return await self.ask(path, "PUT", **options)

    async def everywhere(self, path, status=200, **options):
        """What each of the workers answered at least once."""
        answers, workers, until = [], set(), time.monotonic() + 120
        while len(workers) < WORKERS:
            assert time.monotonic() < until, f"only {len(workers)} workers answer"
            some = await asyncio.gather(*[
                self.ask(path, status=status, **options) for _ in range(3 * WORKERS)])
            answers += some
            workers |= {answer.headers["x-worker"] for answer in some}
        return answers

    async def all_say(self, path, expected, **options):
        for answer in await self.everywhere(path, **options):
            assert answer.json() == expected, answer.headers


def scene(function):
    """A test whose coroutine gets a client; Redis, where there is one, is connected at its begin."""

    def test(site):
        async def main():
            async with site.client() as client:
                await site.begin(client)
                await function(site, Client(site, client))

        run(main())

    test.__name__ = function.__name__
    test.__doc__ = function.__doc__
    return test


# ---- What functions return


@scene
async def test_a_function_with_a_fixed_expiry(site, client):
    await client.ask("/data/a")
    site.middle()
    await client.all_say("/data/a", {"data": "a"})
    await client.all_say("/data/b", {"data": "b"})  # 12 at once, of all workers, of a cold one
    assert site.origin("data:a") == 1 and site.origin("data:b") == 1


@scene
async def test_values_end_at_the_next_five_minute_mark(site, client):
    for kind in ("marked", "computed"):
        began = time.time()
        first = (await client.ask(f"/prices/{kind}")).json()
        site.middle()
        answers = [answer.json() for answer in await client.everywhere(f"/prices/{kind}")]
        marks = {began // 300 * 300 + 300, time.time() // 300 * 300 + 300}  # one, but at a mark itself
        # None: a mark passed between the value and the look at its end
        assert {answer["expires"] for answer in [first, *answers]} - {None} <= marks
        assert {answer["EURUSD"] for answer in answers} == {1.1}
        assert site.origin(f"prices:{kind}") <= len(marks)


@scene
async def test_a_backend_with_an_expiry_of_its_own(site, client):
    """What fastapi-cache2 does with its backend: get_with_ttl() and set()."""
    await client.ask("/backend/k")
    site.middle()
    for answer in await client.everywhere("/backend/k"):
        assert answer.json()["value"] == "k" and 0 <= answer.json()["ttl"] <= 300
    assert site.origin("backend:k") <= 2  # 2 where a 5-minute mark has passed meanwhile


@scene
async def test_keys_by_arguments_and_by_a_builder(site, client):
    await client.ask("/functions/7")
    site.middle()
    await client.all_say("/functions/7", [{"id": 7, "name": "User 7"}, {"id": 7}])
    detailed = [{"id": 7, "name": "User 7"}, {"id": 7, "email": "user7@example.com"}]
    await client.all_say("/functions/7?details=true", detailed)
    for what in ("user-by-id:7", "user-details:7:False", "user-details:7:True"):
        assert site.origin(what) == 1


@scene
async def test_none_is_kept_or_not(site, client):
    await client.ask("/none/x")
    site.middle()
    for _ in range(3):
        assert (await client.ask("/none/x")).json() == [None, None]
    assert site.origin("nobody:x") == 1 and site.origin("nobody-yet:x") == 4


# ---- Pages


@scene
async def test_a_page_is_read_written_through_and_evicted(site, client):
    product = {"id": 1, "name": "Product 1"}
    assert (await client.ask("/products/1")).headers["x-redis-cache"] == "MISS"
    await client.all_say("/products/1", product)
    site.middle()
    for answer in await client.everywhere("/products/1"):
        assert answer.headers["x-redis-cache"] == "HIT"
    assert site.origin("product:1") == 1
    await client.put("/products/1", json={"name": "pear", "price": 2})
    await client.all_say("/products/1", {"id": 1, "name": "pear"})
    assert site.origin("product:1") == 1
    await client.ask("/products/1", "DELETE")
    await client.all_say("/products/1", product)
    assert site.origin("product:1") == 2
    await client.ask("/products/1000")
    await client.ask("/products/1000", "DELETE", status=404)  # failed: nothing is evicted
    await client.all_say("/products/1000", {"id": 1000, "name": "Product 1000"})
    assert site.origin("product:1000") == 1


@scene
async def test_a_group_is_evicted_whole(site, client):
    for number in (11, 12):
        await client.ask(f"/products/{number}")
    site.middle()
    await client.ask("/admin/clear-products", "POST")
    for number in (11, 12):
        await client.all_say(f"/products/{number}", {"id": number, "name": f"Product {number}"})
        assert site.origin(f"product:{number}") == 2


@scene
async def test_a_page_that_redis_has_is_dead_here(site, client):
    """Evicted a moment ago: whoever asks Redis for it gets what is not to be served. That is no fill
    that failed, after which all who wait for one would make the page themselves. Which worker comes
    when decides whether that is seen: hence many."""
    numbers = range(31, 71)
    for number in numbers:
        await client.ask(f"/products/{number}")
    site.middle()
    await client.ask("/admin/clear-products", "POST")
    for number in numbers:
        await client.all_say(f"/products/{number}", {"id": number, "name": f"Product {number}"})
    assert {site.origin(f"product:{number}") for number in numbers} == {2}


@scene
async def test_prefix_group_and_builder_of_ones_own(site, client):
    for tenant in ("a", "b"):
        headers = {"x-tenant": tenant}
        first = await client.ask("/tenant", headers=headers)
        assert first.headers["cache-control"] == "private, max-age=120"
        await client.all_say("/tenant", {"tenant": tenant}, headers=headers)
        assert site.origin(f"tenant:{tenant}") == 1
    site.middle()
    await client.put("/tenant", headers={"x-tenant": "a"})
    await client.all_say("/tenant", {"tenant": "a", "put": True}, headers={"x-tenant": "a"})
    await client.ask("/tenant", "DELETE", headers={"x-tenant": "a"})
    await client.all_say("/tenant", {"tenant": "a"}, headers={"x-tenant": "a"})
    await client.all_say("/tenant", {"tenant": "b"}, headers={"x-tenant": "b"})
    assert site.origin("tenant:a") == 2 and site.origin("tenant:b") == 1


@scene
async def test_private_pages_of_users_that_a_dependency_knows(site, client):
    as_alice, as_bob = ({"headers": {"Authorization": user}} for user in ("alice", "bob"))
    await client.ask("/me/profile", **as_alice)
    site.middle()
    for user, options in (("alice", as_alice), ("bob", as_bob)):
        await client.all_say("/me/profile", {"user": user, "name": "as it was"}, **options)
        assert site.origin(f"profile:{user}") == 1
    await client.put("/me/profile?name=new", **as_alice)
    await client.all_say("/me/profile", {"user": "bob", "name": "as it was"}, **as_bob)
    answers = await client.everywhere("/me/profile", **as_alice)
    assert all(answer.json()["user"] == "alice" for answer in answers)
    assert all(answer.headers["cache-control"].startswith("private") for answer in answers)
    await client.ask("/me/profile", status=401)


@scene
async def test_a_page_without_a_ttl_stays_until_it_is_evicted(site, client):
    first = await client.ask("/config")
    site.middle()
    for answer in await client.everywhere("/config"):
        assert answer.headers["cache-control"] == "no-cache" and answer.headers["x-redis-cache"] == "HIT"
    assert site.origin("config") == 1
    etag = {"If-None-Match": first.headers["etag"]}
    await client.everywhere("/config", status=304, headers=etag)


@scene
async def test_what_a_client_asks_of_the_cache(site, client):
    await client.ask("/products/21")
    site.middle()

    async def status(directive):
        answer = await client.ask("/products/21", headers={"Cache-Control": directive})
        return answer.headers["x-redis-cache"]

    assert [await status(value) for value in ("no-store", "max-age=100", "no-cache", "max-age=0")] == [
        "BYPASS", "HIT", "MISS", "MISS"]
    assert site.origin("product:21") == 4


# ---- Values


@scene
async def test_values_on_a_condition(site, client):
    await client.ask("/items/1")
    site.middle()
    await client.all_say("/items/1", {"id": 1, "status": "published"})
    for _ in range(3):
        assert (await client.ask("/items/2")).json() == {"id": 2, "status": "draft"}
    assert site.origin("item:1") == 1 and site.origin("item:2") == 3


@scene
async def test_parts_of_an_answer_and_a_cascade(site, client):
    expected = {"orders": ["orders", 5], "reco": ["reco", 5]}
    assert (await client.ask("/dashboard/5")).json() == expected
    site.middle()
    await client.all_say("/dashboard/5", expected)
    assert (await client.put("/profile/5")).json() == [False, True, False]  # what was there
    assert (await client.ask("/dashboard/5")).json() == expected
    assert site.origin("orders:5") == 2 and site.origin("reco:5") == 1


@scene
async def test_a_life_that_depends_on_the_value(site, client):
    await client.ask("/content/1")
    site.middle()
    await client.ask("/content/2")
    for number, longest in ((1, 3600), (2, 300)):
        for answer in await client.everywhere(f"/content/{number}"):
            assert longest - 250 < answer.json()["ttl"] <= longest
        assert site.origin(f"content:{number}") == 1


@scene
async def test_read_modify_write_loses_nothing(site, client):
    views = [client.ask("/products/31/view", "POST") for _ in range(20)]
    seen = [answer.json()["views"] for answer in await asyncio.gather(*views)]
    site.middle()
    views = [client.ask("/products/31/view", "POST") for _ in range(20)]
    seen += [answer.json()["views"] for answer in await asyncio.gather(*views)]
    assert sorted(seen) == list(range(1, 41))


@scene
async def test_whether_there_is_a_value(site, client):
    assert (await client.ask("/warm-check/1")).json() == {"warm": False}
    site.middle()
    await client.all_say("/warm-check/1", {"warm": True})
    assert site.origin("warm:1") == 1


@scene
async def test_defaults_and_a_group_of_values(site, client):
    await client.all_say("/settings/x", {"value": "default-value"})
    await client.put("/settings/x?value=mine")
    await client.put("/settings/y?value=too")
    site.middle()
    await client.all_say("/settings/x", {"value": "mine"})
    assert (await client.ask("/settings", "DELETE")).json() == {"deleted": 2}
    await client.all_say("/settings/x", {"value": "default-value"})


# ---- How long a value lives


@scene
async def test_absolute_sliding_extended_and_stale(site, client):
    await client.put("/ttl/a")
    site.middle()
    until = time.monotonic() + 60
    while (await client.ask("/ttl/a")).json()["stale"] != ["old", False]:
        assert time.monotonic() < until
    for answer in await client.everywhere("/ttl/a"):
        times = answer.json()
        assert 3500 < times["absolute"] <= 3600 and times["sliding"]
        assert 600 < times["extended"] <= 900
        assert times["stale"] == ["old", False]
    while (await client.ask("/renewed/a")).json()["value"] != "new":  # the old one at once, meanwhile
        assert time.monotonic() < until
    await client.all_say("/renewed/a", {"value": "new"})
    assert site.origin("renewed:a") == 1


# ---- Invalidation and events


@scene
async def test_patterns_and_tags(site, client):
    await client.ask("/users-list")
    site.middle()
    await client.all_say("/users-list", [{"id": 1}, {"id": 2}])
    assert site.origin("users:list") == 1
    assert (await client.put("/user/1")).json() == {"pattern": 2, "tags": 1}
    await client.all_say("/users-list", [{"id": 1}, {"id": 2}])
    assert (await client.put("/user/3")).json() == {"pattern": 2, "tags": 0}
    assert site.origin("users:list") == 2


@scene
async def test_an_event_reaches_every_worker_once(site, client):
    site.middle()
    await client.ask("/events/7", "POST")
    until = time.monotonic() + 60
    while True:
        answers = [answer.json() for answer in await client.everywhere("/heard/7")]
        if all(answer == {"heard": 1, "there": False} for answer in answers):
            break
        assert time.monotonic() < until and all(answer["heard"] <= 1 for answer in answers), answers


# ---- Responses


@scene
async def test_whole_responses_by_the_middleware(site, client):
    async def statuses(path, **options):
        answers = await client.everywhere(path, **options)
        assert {answer.content for answer in answers} == {bytes(range(256))}
        assert {answer.headers["content-type"] for answer in answers} == {"image/x"}
        return [answer.headers.get("x-cache") for answer in answers]

    await client.ask("/api/products/1?b=2&a=1")
    site.middle()
    assert set(await statuses("/api/products/1?a=1&b=2")) == {"HIT"}
    assert site.origin("api:products/1") == 1
    cold = await statuses("/api/categories")
    assert cold.count("MISS") == 1 and set(cold) == {"HIT", "MISS"}
    assert site.origin("api:categories") == 1
    assert set(await statuses("/api/products/user")) == {None}  # excluded
    assert set(await statuses("/api/other")) == {None}  # not included
    assert "HIT" not in await statuses("/api/products/missing", status=404)
    for user in ("7", "8"):
        await statuses("/api/products/2", headers={"X-User-ID": user})
    assert site.origin("api:products/2") == 2


@scene
async def test_the_response_of_one_endpoint(site, client):
    first = await client.ask("/cached-response?x=1")
    assert first.headers["x-cache"] == "MISS"
    site.middle()
    for answer in await client.everywhere("/cached-response?x=1"):
        assert answer.headers["x-cache"] == "HIT" and answer.json() == {"products": [1, 2]}
    assert site.origin("cached-response:x=1") == 1


# ---- Sessions


@scene
async def test_sessions_are_every_workers(site, client):
    async def log_in(name):
        answer = await client.ask(f"/login?username={name}&password=right", "POST")
        cookie = answer.headers["set-cookie"]
        for part in ("session_id=", "HttpOnly", "Secure", "SameSite=Lax", "Max-Age=1800"):
            assert part in cookie
        return {"headers": {"Cookie": cookie.split(";")[0]}}

    await client.ask("/login?username=a&password=wrong", "POST", status=401)
    await client.ask("/profile", status=401)
    alice, other, bob = await log_in("alice"), await log_in("alice"), await log_in("bob")
    site.middle()
    await client.ask("/profile?key=theme&value=dark", "PATCH", **alice)
    profile = {"user_id": "alice", "data": {"username": "alice", "theme": "dark"}}
    await client.all_say("/profile", profile, **alice)
    await client.all_say("/profile", {"user_id": "bob", "data": {"username": "bob"}}, **bob)
    answer = await client.ask("/logout", "POST", **alice)
    assert answer.json() == {"ended": 1} and "Max-Age=0" in answer.headers["set-cookie"]
    await client.everywhere("/profile", status=401, **alice)
    third = await log_in("alice")
    assert (await client.ask("/logout?everywhere=true", "POST", **third)).json() == {"ended": 2}
    await client.everywhere("/profile", status=401, **other)
    await client.all_say("/profile", {"user_id": "bob", "data": {"username": "bob"}}, **bob)


# ---- Redis comes and goes


@scene
async def test_health_says_how_it_is(site, client):
    async def health():
        return (await client.ask("/health")).json()

    expected = {"alone": ("unused", "healthy"), "redis": ("connected", "healthy"),
                "killed": ("disconnected", "degraded")}[site.mode]
    site.middle()
    if site.redis is not None:
        await until_redis_is(client.client, expected[0])
    said = await health()
    assert (said["redis"], said["status"], said["cache"]) == (*expected, "available")
    assert 0 <= said["hit_ratio"] <= 1 and said["entries"] > 0
    if site.mode == "killed":  # and back, without a restart of anything
        await site.begin(client.client)
        assert (await health())["status"] == "healthy"
