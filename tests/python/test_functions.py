# needs: fastapi
# needs: httpx
"""@cache: functions of one name are not each other's; and what cannot be kept is returned all the same."""

import asyncio
import collections
import datetime
import decimal
import enum
import json
import logging
import math
import os
import subprocess
import sys
import textwrap
import uuid

import larder
import pytest
from fastapi.responses import JSONResponse
from larder._store import counts
from larder.decorator import cache as cached
from larder.invalidation import CacheInvalidator
from pydantic import BaseModel

pytestmark = pytest.mark.usefixtures("default_map")


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 120))


# ---- Functions of one name


class Land(enum.Enum):
    DE = 1
    FR = 2


def closure(value):
    @cached(expire=60)
    def price(item):
        return [item, repr(value)]

    return price


def test_lambdas_are_not_each_others():
    one, two = cached(expire=60)(lambda x: x + 1), cached(expire=60)(lambda x: x * 100)
    named, other = cached(expire=60)(lambda x: x.real), cached(expire=60)(lambda x: x.imag)
    assert [one(5), two(5), one(5), two(5), named(5), other(5)] == [6, 500, 6, 500, 5, 0]


def test_closures_over_plain_values_are_not_each_others():
    values = ["de", "fr", 1, "1", True, None, 1.0, b"1", (1, 2), (1, (2,)), Land.DE, Land.FR, str, int, json,
              len.__name__, lambda: 1, lambda: 2]
    functions = [closure(value) for value in values]
    for _ in range(2):
        assert [function("tea") for function in functions] == [["tea", repr(value)] for value in values]
    assert closure("de").cache_key("tea") == functions[0].cache_key("tea")  # in every process


def test_closures_over_other_closures_are_not_each_others():
    def twice(function):
        return lambda x: 2 * function(x)

    def scaled(by):
        return lambda x: by * x

    functions = [cached(expire=60)(twice(scaled(by))) for by in (1, 2, 3)]
    assert [function(1) for function in functions] == [2, 4, 6]


def test_what_has_no_form_in_a_key_is_refused_the_second_time():
    class Tenant:
        def page(self):
            return id(self)

    first, second = Tenant(), Tenant()
    assert closure(first)("tea") == closure(first)("tea") == ["tea", repr(first)]
    with pytest.raises(TypeError, match="closure.*price.*'value'.*Tenant.*name="):
        closure(second)
    cached(expire=60)(first.page)
    with pytest.raises(TypeError, match="page.*'self'.*Tenant"):
        cached(expire=60)(second.page)

    def own(tenant, **options):
        @cached(expire=60, **options)
        def page():
            return id(tenant)

        return page

    for options in ({"name": "{}"}, {"prefix": "{}"}, {"key_builder": "{}"}):
        pages = []
        for tenant in (first, second):
            option, = options
            value = f"{option}:{id(tenant)}"
            pages.append(own(tenant, **{option: (lambda value=value: value) if option == "key_builder" else value}))
        assert [page() for page in pages] == [id(first), id(second)]


def test_a_function_that_calls_itself_and_one_that_is_defined_once(cache):
    calls = []

    @cached(expire=60)
    def factorial(n):
        calls.append(n)
        return n * factorial(n - 1) if n else 1

    assert factorial(3) == 6 and factorial(3) == 6 and calls == [3, 2, 1, 0]
    name = "test_functions.test_a_function_that_calls_itself_and_one_that_is_defined_once.<locals>.factorial#"
    assert factorial.cache_key(3).startswith("cache:" + name)


def test_two_of_one_name_in_a_module_and_a_module_that_is_loaded_again():
    text = """
        from larder.decorator import cache
        @cache(expire=60)
        def get(): return "first"
        one = get
        @cache(expire=60)
        def get(): return "second"
        """
    for _ in range(2):
        module = {"__name__": "module_of_a_test"}
        exec(textwrap.dedent(text), module)
        assert [module["one"](), module["get"]()] * 2 == ["first", "second"] * 2
        assert module["one"].cache_key() == "cache:module_of_a_test.get:{}"


def test_keys_are_the_same_in_every_process():
    """Also where the seed of hashes is another."""
    text = """
        from larder.decorator import cache
        def make(value):
            return cache(expire=60)(lambda x: x in {"a", "b", "c", "d"} and value)
        print(make("v").cache_key(1), make(("a", 1)).cache_key(1))
        """
    keys = {subprocess.run([sys.executable, "-c", textwrap.dedent(text)], check=True, capture_output=True,
                           env={**os.environ, "PYTHONHASHSEED": str(seed)}).stdout
            for seed in (1, 2, 3)}
    assert len(keys) == 1


# ---- Values that cannot be kept


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_what_is_no_json_or_has_too_many_tags_is_returned(cache, caplog, kind):
    calls = []
    response, circle = JSONResponse({"a": 1}), []
    circle.append(circle)
    values = {"bytes": b"bytes", "response": response, "circle": circle, "tags": 1}

    def function(what):
        calls.append(what)
        return values[what]

    async def coroutine(what):
        return function(what)

    def decorated(**options):
        return cached(expire=60, tags=lambda what: map(str, range(17 if what == "tags" else 2)), **options)(
            function if kind == "plain" else coroutine)

    def call(function, what):
        return function(what) if kind == "plain" else run(function(what))

    before = counts["unkept"]
    counts["unkept"] = 0
    keeping, strict = decorated(name="keeping"), decorated(name="strict", skip_cache_on_error=False)
    with caplog.at_level(logging.WARNING, logger="larder"):
        for what, value in values.items():
            assert call(keeping, what) is value and call(keeping, what) is value
            assert cache.get(keeping.cache_key(what)) is None
    assert calls == [what for what in values for _ in range(2)]
    assert counts["unkept"] == 8 and len(caplog.records) == 1
    for what in values:
        with pytest.raises((TypeError, ValueError)):
            call(strict, what)
    counts["unkept"] += before


def same(one, other):
    """Equal, and of the same types all the way down: 1 is not 1.0, nor True."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(*pair) for pair in zip(one, other)) and all(
            same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other))
    return one == other or (one != one and other != other)


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    pass


class Kept(BaseModel):
    day: datetime.date


DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]
JSON = [None, True, 0, 1, 1.0, -0.0, 1e300, 2**80, math.inf, math.nan, "", "a\0\u00e4\U0001f600", [], {}, [1, 1.0, True, None, "1"],
        {"a": [{"b": {}}], "": 0.1}, [[[]]] * 20]
OTHERS = [{1: 2}, {1: "a", "1": "b"}, {True: 1}, {None: 1}, {1.5: 1}, {Text("a"): 1}, (1, 2), {"a": (1,)}, [()], {1, 2},
          frozenset(), datetime.date(2020, 1, 1), [datetime.time(1)], decimal.Decimal("1.0"), uuid.UUID(int=1), Number.ONE,
          {"a": Text("a")}, collections.OrderedDict(a=1), collections.defaultdict(int, a=1), collections.namedtuple("P", "x")(1),
          Kept(day=datetime.date(2020, 1, 1)), "\ud83d\ude00", {"\ud83d\ude00": 1}, 10**5000, DEEP]


@pytest.mark.parametrize("number", range(len(JSON) + len(OTHERS)))
def test_a_hit_gives_what_the_miss_gave(cache, number):
    value, calls = (JSON + OTHERS)[number], []
    kept = number < len(JSON)

    @cached(expire=60, name=f"plain {number}")
    def plain():
        calls.append(1)
        return value

    @cached(expire=60, name=f"coroutine {number}")
    async def coroutine():
        calls.append(1)
        return value

    before = counts["unkept"]
    for call in (plain, lambda: run(coroutine())):
        assert call() is value
        again = call()
        assert same(again, value) if kept else again is value
    assert len(calls) == (2 if kept else 4) and counts["unkept"] - before == (0 if kept else 4)
    counts["unkept"] = before


def test_why_a_value_is_not_kept_names_the_way_out(cache, caplog):
    @cached(expire=60, skip_cache_on_error=False)
    def prices():
        return {1: "a", "1": "b"}

    with pytest.raises(TypeError, match="1, a int, .*pass model="):
        prices()

    @cached(expire=60, model=Kept)
    def day():
        calls.append(1)
        return Kept(day=datetime.date(2020, 1, 1))

    calls: list = []
    assert day() == day() == Kept(day=datetime.date(2020, 1, 1)) and calls == [1]


def test_all_who_wait_for_what_cannot_be_kept_have_it():
    @cached(expire=60)
    async def raw():
        await asyncio.sleep(0.01)
        return b"raw"

    async def main():
        return await asyncio.gather(*[raw() for _ in range(10)])

    assert run(main()) == [b"raw"] * 10


def test_all_who_wait_behind_another_process_for_what_cannot_be_kept_have_it(cache):
    @cached(expire=60)
    async def raw():
        await asyncio.sleep(0.01)
        return b"raw"

    async def main():
        cache.watch()
        lease = cache.lease_acquire(raw.cache_key())[2]
        tasks = [asyncio.ensure_future(raw()) for _ in range(10)]
        await asyncio.sleep(0)
        lease.abandon(True)
        return await asyncio.gather(*tasks)

    assert run(main()) == [b"raw"] * 10


@pytest.mark.parametrize("plain", [False, True])
def test_an_error_of_larders_that_the_function_raises_is_its_own(plain):
    calls = []

    @cached(expire=60, name=f"coroutine {plain}")
    async def coroutine():
        calls.append(1)
        await asyncio.sleep(0.01)
        raise larder.BusyError("own")

    @cached(expire=60, name=f"function {plain}")
    def function():
        calls.append(1)
        raise larder.BusyError("own")

    async def main():
        return await asyncio.gather(*[coroutine() for _ in range(10)], return_exceptions=True)

    if plain:
        with pytest.raises(larder.BusyError, match="own"):
            function()
    else:
        assert {str(error) for error in run(main())} == {"own"}
    assert calls == [1]


def test_a_value_over_the_limit_is_returned_by_all_forms(cache):
    value = b"x" * ((8 << 20) + 1)
    calls = []

    async def fill():
        calls.append(1)
        await asyncio.sleep(0.01)
        return value

    async def main():
        return await asyncio.gather(*[cache.fetch_async("async", fill, ttl=60) for _ in range(3)])

    assert cache.fetch("plain", lambda: value, ttl=60) == value
    assert run(main()) == [value] * 3 and len(calls) == 1
    assert run(main()) == [value] * 3 and len(calls) == 2
    assert cache.get("async") is None and cache.get("plain") is None
    with pytest.raises(larder.TooBigError):
        cache.set("set", value)


def test_more_tags_than_an_entry_can_have(cache, caplog):
    invalidator = CacheInvalidator(cache)

    async def list_users(n, again=1):
        tags = [f"user:{i}" for i in range(n)] * again
        return await invalidator.set_with_tags("users:list", json.dumps(tags), ttl=300, tags=tags)

    assert run(list_users(16, again=2)) and cache.get("users:list")
    counts["unkept"] = 0
    with caplog.at_level(logging.WARNING, logger="larder"):
        for _ in range(3):
            assert run(list_users(17)) is False
            assert cache.get("users:list") is None  # nor the old one
    assert len(caplog.records) == 1 and "17 tags" in caplog.text
    assert run(list_users(3)) and run(invalidator.invalidate_by_tags("user:2")) == 1
