"""larder.Map: values, times, marks, many keys, scans, events, figures."""

import datetime
import gc
import math
import threading
import time

import larder
import pytest


def test_a_value_comes_back_byte_for_byte(cache):
    for size in (0, 1, 100, 4095, 4096, 4097, 70_000, 300_000, 1 << 20):
        value = bytes(i & 255 for i in range(size))
        cache.set("key", value)
        assert cache.get("key") == value
        assert cache.lookup("key").value == value


def test_keys_are_bytes_and_str_is_utf8(cache):
    cache.set("ключ", "värde")
    assert cache.get("ключ".encode()) == "värde".encode()
    cache.set(b"\x00\xff{}*?[", bytearray(b"b"))
    assert cache.get(memoryview(b"\x00\xff{}*?[")) == b"b"
    for wrong in (1, None, 1.5, ["k"]):
        with pytest.raises(TypeError, match="key: bytes or str"):
            cache.get(wrong)
    with pytest.raises(TypeError, match="value: bytes or str"):
        cache.set("k", 7)
    with pytest.raises(UnicodeEncodeError):
        cache.get("\ud800")


def test_misses_give_the_default(cache):
    assert cache.get("none") is None
    assert cache.get("none", b"d") == b"d"
    assert cache.get("none", default=7) == 7
    assert cache.lookup("none") is None
    assert "none" not in cache and not cache.has("none")
    with pytest.raises(TypeError):
        cache.get("none", 1, 2)
    with pytest.raises(TypeError, match="no argument 'fallback'"):
        cache.get("none", fallback=1)


def test_an_empty_value_is_a_hit_and_a_negative_entry_is_none(cache):
    cache.set("empty", b"")
    assert cache.get("empty") == b"" and "empty" in cache
    cache.set("absent", None, negative=True, ttl=60)
    assert cache.get("absent", b"default") == b"default"
    entry = cache.lookup("absent")
    assert entry.absent and entry.value is None and 0 < entry.ttl <= 60
    with pytest.raises(TypeError):
        cache.set("absent", None)


def test_a_ttl_in_all_its_forms(cache):
    for ttl in (60, 60.0, datetime.timedelta(minutes=1)):
        cache.set("k", b"v", ttl=ttl)
        entry = cache.lookup("k")
        assert 50 < entry.ttl <= 60 and not entry.stale
        assert math.isclose(entry.expires - entry.created, 60, abs_tol=0.01)
    for never in (0, None, 0.0, datetime.timedelta()):
        cache.set("k", b"v", ttl=never)
        assert cache.lookup("k").ttl is None and cache.lookup("k").expires is None


def test_the_smallest_time_is_not_for_ever(cache):
    cache.set("k", b"v", ttl=1e-9)
    time.sleep(0.02)
    assert cache.get("k") is None


def test_bad_times_are_named_and_change_nothing(cache):
    cache.set("k", b"v")
    for wrong, error in (
        (-1, ValueError),
        (-0.0001, ValueError),
        (datetime.timedelta(seconds=-1), ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (1 << 62, OverflowError),
        (1e300, OverflowError),
        ("60", TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error, match="ttl"):
            cache.set("k", b"other", ttl=wrong)
    with pytest.raises(ValueError, match="exclude each other"):
        cache.set("k", b"other", ttl=1, every=5)
    with pytest.raises(ValueError, match="offset is for every"):
        cache.set("k", b"other", ttl=1, offset=1)
    with pytest.raises(TypeError, match="set.. has no argument 'expire'"):
        cache.set("k", b"other", expire=1)
    for period in ("every", "sliding"):  # 0 is "for ever" for ttl alone
        with pytest.raises(ValueError, match="positive"):
            cache.set("k", b"other", **{period: 0})
    assert cache.get("k") == b"v"
    cache.set("k", b"v", every=None, sliding=None, ttl=0, stale=0, jitter=0, max_lifetime=0)
    assert cache.lookup("k").ttl is None


def test_aligned_and_absolute_expiry(cache):
    cache.set("k", b"v", every=300)
    assert cache.lookup("k").expires % 300 == 0
    cache.set("k", b"v", offset=60, every=datetime.timedelta(minutes=5))
    assert cache.lookup("k").expires % 300 == 60
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    cache.set("k", b"v", at=at)
    assert math.isclose(cache.lookup("k").expires, at.timestamp(), abs_tol=0.001)
    cache.set("k", b"v", at=time.time() - 10)  # in the past: a delete
    assert cache.get("k") is None


def test_sliding_stale_and_extended(cache):
    cache.set("k", b"v", sliding=30)
    assert cache.lookup("k").sliding
    cache.set("k", b"old", ttl=0.01, stale=60)
    time.sleep(0.05)
    assert cache.get("k") is None
    entry = cache.lookup("k", stale=True)
    assert entry.value == b"old" and entry.stale and entry.ttl == 0 and entry.stale_until > time.time()
    cache.set("k", b"v", ttl=5)
    assert cache.lookup("k", extend=1000).ttl > 900
    assert cache.touch("k", ttl=3000) and cache.lookup("k", peek=True).ttl > 2900
    assert not cache.touch("none", ttl=3)
    with pytest.raises(TypeError, match="touch.. has no argument 'stale'"):
        cache.touch("k", stale=3)


def test_read_modify_write(cache):
    assert cache.add("k", b"1") and not cache.add("k", b"2")
    assert cache.replace("k", b"3") and not cache.replace("none", b"4")
    version = cache.lookup("k").version
    assert cache.cas("k", b"5", version) and not cache.cas("k", b"6", version)
    assert not cache.cas("none", b"7", version)
    for number, node in ((2**64, 0), (-1, 0), (2**80, 0), (0, 2**32), (0, -1), (version[0] + 2**64, version[1])):
        with pytest.raises(OverflowError, match="version: the (clock|node) is 0 to"):
            cache.cas("k", b"6", (number, node))
    with pytest.raises(TypeError, match="clock"):
        cache.cas("k", b"6", (1.5, 0))
    assert not cache.cas("k", b"6", (2**64 - 1, 2**32 - 1))
    assert cache.get("k") == b"5"
    assert cache.incr("n") == 1 and cache.incr("n", -11) == -10
    cache.set("n", str(2**63 - 1))
    with pytest.raises(OverflowError):
        cache.incr("n")
    cache.set("n", b"abc")
    with pytest.raises(larder.NumberError):
        cache.incr("n")
    assert cache.delete("k") and not cache.delete("k")


def test_marks_prefixes_patterns(cache):
    cache.set("a:1", b"v", group="g", tags=["user:1", b"\x00\xff"])
    cache.set("a:2", b"v", group="gg", tags=("user:2",))
    cache.set("b*1", b"v", tags=iter(["user:1"]))
    cache.set("b21", b"v")
    assert cache.lookup("a:1").marked and not cache.lookup("b21").marked
    assert cache.invalidate_group("g") is None
    assert "a:1" not in cache and "a:2" in cache
    assert cache.invalidate_tag(b"user:1", count=True) == 1
    assert "b*1" not in cache
    cache.set("b*1", b"v")
    assert cache.invalidate_match(r"b\*?") == 1
    assert list(cache.keys()) == [b"a:2", b"b21"]
    assert cache.invalidate_prefix("a:") == 1
    cache.clear()
    assert list(cache.keys()) == []
    with pytest.raises(TypeError, match="a sequence of names"):
        cache.set("k", b"v", tags="user:1")
    with pytest.raises(ValueError, match="17 of them"):
        cache.set("k", b"v", tags=[str(i) for i in range(17)])
    with pytest.raises(ValueError, match="group: an empty name"):
        cache.set("k", b"v", group="")
    with pytest.raises(larder.InvalidError):
        cache.invalidate_match("[a")


def test_many_keys(cache):
    assert cache.set_many({f"k{i}": b"%d" % i for i in range(1000)}, ttl=60, group="many") == []
    assert cache.get_many(["k1", b"k2", "none"]) == {"k1": b"1", b"k2": b"2"}
    assert cache.lookup("k999").ttl > 0 and cache.lookup("k999").marked
    assert len(list(cache.keys("k"))) == 1000
    assert list(cache.keys(match="k?")) == [b"k%d" % i for i in range(10)]
    assert dict(cache.items("k99"))[b"k999"] == b"999"
    cache.set("negative", None, negative=True)
    cache.set("negative but empty", b"")
    assert list(cache.items("nega")) == [(b"negative", None), (b"negative but empty", b"")]
    assert cache.delete_many(f"k{i}" for i in range(0, 2000, 2)) == 500
    assert cache.get_many([]) == {} and cache.set_many({}) == [] and cache.delete_many([]) == 0
    with pytest.raises(ValueError, match="4097 keys in one call"):
        cache.get_many([str(i) for i in range(4097)])
    for wrong in ("key", b"key"):
        with pytest.raises(TypeError, match="not one key"):
            cache.get_many(wrong)
    with pytest.raises(TypeError):
        cache.set_many([("a", b"b")])
    with pytest.raises(TypeError, match="value"):
        cache.set_many({"a": 1})


def test_a_dict_may_change_while_it_is_stored(cache):
    class Key(str):
        others = None

        def __hash__(self):
            if self.others == []:
                values["a"] = None
                self.others = [b"B" * 10_000 for _ in range(100)]
            return hash(str(self))

    key = Key("b")
    values = {"a": b"".join([b"A"] * 10_000), key: b"b"}
    key.others = []
    cache.set_many(values)
    assert values["a"] is None and cache.get("a") == b"A" * 10_000


def test_errors_name_the_thing(cache, directory):
    with pytest.raises(larder.InvalidError, match="key of 0 bytes") as caught:
        cache.set("", b"v")
    assert caught.value.code == -1003 and isinstance(caught.value, (larder.Error, ValueError))
    with pytest.raises(larder.TooBigError, match="70000"):
        cache.get("k" * 70000)
    with pytest.raises(larder.TooBigError):
        cache.set("k", bytes(9 << 20))
    with pytest.raises(larder.NotFoundError):
        larder.Map("none", dir=directory, attach=True)
    with pytest.raises(larder.InvalidError, match="byte 4 of the map's name"):
        larder.Map("bad/name", dir=directory)
    with pytest.raises(larder.Error):
        larder.Map("test", dir="/nonexistent/\udcff")
    for wrong in (-1, 1 << 64):
        with pytest.raises(ValueError, match="map_size"):
            larder.Map("m", dir=directory, map_size=wrong)
    with larder.Map("test", dir=directory, read_only=True) as reader:
        with pytest.raises(larder.ReadOnlyError):
            reader.set("k", b"v")


def test_a_closed_map_says_so(directory):
    opened = larder.Map("m", dir=directory, map_size=16 << 20)
    opened.set("k", b"v")
    view = opened.borrow("k")
    assert not opened.closed
    opened.close()
    opened.close()
    assert opened.closed
    for call in (
        lambda: opened.get("k"),
        lambda: opened.set("k", b"v"),
        lambda: opened.delete("k"),
        lambda: "k" in opened,
        lambda: list(opened.keys()),
        lambda: opened.fetch("k", lambda: b""),
        lambda: opened.notify_fd(),
        lambda: opened.stats(),
        lambda: opened.follow(),
    ):
        with pytest.raises(ValueError, match="the map is closed"):
            call()
    assert bytes(view.parts[0]) == b"v"  # what is borrowed stays readable
    view.release()


def test_borrowed_parts_stay_while_they_are_used(cache):
    value = bytes(i % 251 for i in range(100_000))
    cache.set("k", value)
    assert cache.borrow("none") is None
    with cache.borrow("k") as view:
        parts = view.parts
        assert b"".join(parts) == value and len(parts) > 1
        assert all(part.readonly for part in parts)
        piece = parts[0][10:20]
    assert bytes(piece) == value[10:20]  # the slice keeps it
    with pytest.raises(ValueError, match="released"):
        view.parts
    del parts, piece
    views = [cache.borrow("k") for _ in range(64)]
    with pytest.raises(larder.LimitError):
        cache.borrow("k")
    del views
    cache.borrow("k").release()


def test_fetch_fills_once(cache):
    calls = []

    def fill():
        calls.append(1)
        time.sleep(0.05)
        return b"filled"

    got = []
    threads = [
        threading.Thread(target=lambda: got.append(cache.fetch("k", fill, ttl=60)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [b"filled"] * 16 and len(calls) == 1
    assert cache.lookup("k").ttl > 50


def test_what_a_fill_may_return(cache):
    assert cache.fetch("absent", lambda: None, ttl=60) is None
    assert cache.lookup("absent").absent
    assert cache.fetch("skip", lambda: larder.Skip(b"mine")) == b"mine"
    assert cache.get("skip") is None
    assert cache.fetch("own", lambda: larder.Filled(b"v", ttl=500, tags=["t"]), ttl=5) == b"v"
    assert cache.lookup("own").ttl > 400 and cache.lookup("own").marked
    with pytest.raises(ZeroDivisionError):
        cache.fetch("raises", lambda: 1 / 0)
    with pytest.raises(TypeError, match="what the fill returned"):
        cache.fetch("wrong", lambda: 7)
    with pytest.raises(TypeError, match="no argument 'tll'"):
        cache.fetch("wrong", lambda: larder.Filled(b"v", tll=5))
    with pytest.raises(ValueError, match="ttl"):
        cache.fetch("wrong", lambda: larder.Filled(b"v", ttl=-5))
    assert cache.get("wrong") is None and cache.get("raises") is None


def test_a_fill_that_met_a_closed_map_is_no_value(cache, directory):
    """ClosedError is Python's alone: it has no number of the library's, to which 0 is success."""
    other = larder.Map("other", dir=directory)
    other.close()

    def fill():
        try:
            return other.get("k")
        except larder.ClosedError as error:
            raise error

    with pytest.raises(larder.ClosedError):
        cache.fetch("k", fill, ttl=60)
    assert cache.lookup("k") is None
    cache.set("k", b"old", ttl=0.001, stale=60)
    time.sleep(0.01)
    assert cache.fetch("k", fill, ttl=60) == b"old"


@pytest.mark.parametrize("name", [1, 2.5, b"ttl", ("ttl",), None])
def test_the_names_of_a_fills_policy_are_str(cache, name):
    filled = larder.Filled(b"v")
    filled.policy = {name: 60}
    with pytest.raises(TypeError, match="names are str"):
        cache.fetch("k", lambda: filled)
    assert cache.lookup("k") is None


def test_a_failed_fill_gives_the_stale_value(cache):
    cache.set("k", b"old", ttl=0.01, stale=60)
    time.sleep(0.05)
    assert cache.fetch("k", lambda: 1 / 0, ttl=5) == b"old"


def test_what_ends_a_program_passes_a_fill(cache):
    cache.set("k", b"stale", ttl=0.001, stale=60)
    time.sleep(0.01)
    for error in (KeyboardInterrupt, SystemExit):

        def fill():
            raise error

        with pytest.raises(error):
            cache.fetch("k", fill)
    assert cache.fetch("k", lambda: 1 // 0) == b"stale"


def test_a_filled_may_change_while_it_is_stored(cache):
    class Changing(larder.Filled):
        @property
        def value(self):
            return b"".join([b"A"] * 10_000)

        @value.setter
        def value(self, ignored):
            pass

    class Kept:
        def total_seconds(self):
            filled.policy.clear()
            self.others = [b"B" * 10_000 for _ in range(100)]
            return 60.0

    filled = Changing(None, group="".join(["g"] * 100), ttl=Kept())
    assert cache.fetch("k", lambda: filled) == b"A" * 10_000 == cache.get("k")
    cache.invalidate_group("g" * 100)
    assert cache.get("k") is None


def test_a_fill_loses_to_an_invalidation(cache):
    def fill():
        cache.delete("k")
        return b"old"

    assert cache.fetch("k", fill) == b"old"
    assert cache.get("k") is None


def test_leases(cache):
    outcome, entry, lease = cache.lease_acquire("k", hold=5)
    assert outcome == larder.FILL and entry is None
    outcome, entry, waiting = cache.lease_acquire("k")
    assert outcome == larder.WAIT and waiting.wait() == larder.WAIT
    assert lease.renew(5) and lease.fill(b"v", ttl=60)
    assert waiting.wait(5) == larder.OK and cache.get("k") == b"v"
    outcome, entry, lease = cache.lease_acquire("k")
    assert outcome == larder.OK and entry.value == b"v" and lease is None
    lease = cache.lease_acquire("other")[2]
    assert lease.abandon() and not lease.abandon() and lease.fill(b"late")  # without harm
    lease = cache.lease_acquire("negative")[2]
    assert lease.fill(None, ttl=60) and cache.lookup("negative").absent
    assert cache.ask("nobody answers", 0.05) is None


def test_a_lease_that_is_let_go_of_is_the_next_ones(cache):
    waiting = []

    def holder():
        assert cache.lease_acquire("k", hold=600)[0] == larder.FILL  # dropped by the end of the line
        outcome, _, lease = cache.lease_acquire("k", hold=600)
        assert outcome == larder.FILL
        outcome, _, other = cache.lease_acquire("k")
        assert outcome == larder.WAIT
        del other  # not its own: ends nothing
        waiting.append(cache.lease_acquire("k")[2])
        assert waiting[0].ended() is None
        raise KeyError(lease)

    with pytest.raises(KeyError):
        holder()
    gc.collect()
    assert waiting[0].wait(5) == larder.OK
    outcome, _, lease = cache.lease_acquire("k", hold=600)
    assert outcome == larder.FILL and lease.fill(b"v")
    del lease
    assert cache.get("k") == b"v"
    lease = cache.lease_acquire("closed", hold=600)[2]
    cache.close()
    del lease


def test_events(cache):
    with cache.follow(kinds=larder.EVENT_SET | larder.EVENT_DELETE, prefix="a:") as changes:
        with cache.follow(kinds=larder.EVENT_NAMED, names=["user:updated"]) as named:
            cache.set("a:1", b"v", ttl=60)
            cache.set("b:1", b"v")
            cache.delete("a:1")
            cache.publish("user:updated", "123")
            cache.publish("other", b"")
            event = changes.next(10)
            assert (event.kind, event.name) == (larder.EVENT_SET, b"a:1")
            assert event.expires > time.time() and event.version > (0, 0)
            assert changes.next(10).kind == larder.EVENT_DELETE
            assert changes.next() is None
            event = named.next(10)
            assert (event.kind, event.name, event.data) == (
                larder.EVENT_NAMED, b"user:updated", b"123")
            assert named.next() is None
    with pytest.raises(RuntimeError, match="closed"):
        changes.next()


def test_kinds_of_events_that_are_none_are_refused(cache):
    for kinds in (64, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 80, larder.EVENT_SET | 1 << 33, -1, -1 << 40, -1 << 80):
        with pytest.raises(larder.InvalidError):
            cache.follow(kinds=kinds)
    with pytest.raises(TypeError):
        cache.follow(kinds="set")


def test_events_that_were_missed_are_told(cache):
    with cache.follow(kinds=larder.EVENT_NAMED, names="n") as follower:
        for _ in range(9000):
            cache.publish("n", b"x")
        event = follower.next()
        assert event.kind == 0 and event.missed > 0
        assert follower.next().kind == larder.EVENT_NAMED


def test_figures(cache):
    cache.set("k", b"v")
    cache.get("k")
    cache.get("none")
    stats = cache.stats()
    assert stats["sets"] == 1 and stats["hits"] == 1 and stats["misses"] == 1
    assert stats["entries"] == 1 and stats["redis_up"] is False
    assert set(cache.latency(larder.LATENCY_HIT)) >= {"count", "p50_ns", "p99_ns"}
    with pytest.raises(larder.InvalidError):
        cache.latency(99)


def test_close_waits_for_those_who_are_inside(directory):
    opened = larder.Map("m", dir=directory, map_size=16 << 20)
    inside, go = threading.Event(), threading.Event()

    def fill():
        inside.set()
        assert go.wait(60)
        return b"v"

    got = []
    thread = threading.Thread(target=lambda: got.append(opened.fetch("k", fill)))
    thread.start()
    assert inside.wait(60)
    opened.close()
    assert opened.closed
    go.set()
    thread.join()
    assert got == [b"v"]


def test_an_argument_may_close_the_map(directory):
    def opened():
        return larder.Map("closed", dir=directory, map_size=16 << 20)

    class Closing:
        def __init__(self, cache):
            self.cache = cache

        def __index__(self):
            self.cache.close()
            return 0

    for _ in range(3):
        cache = opened()
        with pytest.raises(larder.ClosedError):
            cache.latency(Closing(cache))


def test_a_map_that_is_forgotten_is_closed(directory):
    for _ in range(50):
        larder.Map("m", dir=directory, map_size=16 << 20).set("k", b"v")
    with larder.Map("m", dir=directory) as again:
        assert again.get("k") == b"v" and again.stats()["processes"] == 1


def test_what_is_exported_is_documented():
    for name in dir(larder.Map):
        if not name.startswith("_"):
            assert getattr(larder.Map, name).__doc__, name
    assert larder.__version__ == larder.version_text()
