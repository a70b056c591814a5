"""proxy_scenes.py: the example server as a caching reverse proxy, over real HTTP: what it stores, serves, revalidates and
passes on, and the gateway's lines of tests/http/cases.txt. Run by proxy.sh."""

import http.client
import os
import re
import subprocess
import threading
import time
from email.utils import formatdate

from proxy_harness import (PATIENCE, SERVER, SOURCE, address, ask, at_once, check, conditional, connect, origin, page, raw,
                           run, state, within)

SOON = 7  # seconds; after 10 those who wait for another go to the origin in any case
TRIES = 3  # on a busy machine even that may be late

# ---- What is checked ----------------------------------------------------------------------------------


def check_stampede():
    origin.pages["/cold"] = page("Cache-Control: max-age=3600", body=b"cold", delay=0.3)
    answers = at_once(40, lambda: ask("/cold"))
    check("40 clients of a cold page cost its origin one request", origin.count("/cold") == 1, origin.count("/cold"))
    check("and all get it", [a.text for a in answers] == [b"cold"] * 40)
    check("one of them as a miss", sorted(state(a) for a in answers).count("MISS") == 1)
    workers = set()
    within(lambda: workers.add(ask("/cold").getheader("X-Worker")) or len(workers) > 1)
    check("several workers answer out of the same map", len(workers) > 1, workers)
    check("and none of them asks again", origin.count("/cold") == 1)


def check_headers():
    origin.pages["/head"] = page("Cache-Control: max-age=3600", "Link: <a>", "X-A: 1", "Link: <b>",
                                 "Content-Type: text/x; charset=latin1", "Connection: X-A", body=b"\0\xff\r\n")
    ask("/head")
    answer = ask("/head")
    check("bytes, repeated fields and their order are kept",
          answer.text == b"\0\xff\r\n" and answer.headers.get_all("Link") == ["<a>", "<b>"])
    check("the type is the origin's", answer.getheader("Content-Type") == "text/x; charset=latin1")
    check("fields of one hop are not", answer.getheader("X-A") is None)
    check("a hit has an Age and a Date", answer.getheader("Age") is not None and answer.getheader("Date") is not None)
    head = ask("/head", method="HEAD")
    check("HEAD is answered from what GET stored",
          state(head) == "HIT" and head.text == b"" and head.getheader("Content-Length") == "4")
    check("Range goes to the origin", state(ask("/head", "Range: bytes=0-1")) == "BYPASS")
    check("no-store in a request does, too", state(ask("/head", "Cache-Control: no-store")) == "BYPASS")
    check("only-if-cached gets what is cached", ask("/head", "Cache-Control: only-if-cached").status == 200)
    check("and 504 for what is not", ask("/nothing", "Cache-Control: only-if-cached").status == 504)
    check("of which the origin does not hear", origin.count("/nothing") == 0)


def check_revalidation():
    origin.pages["/etag"] = conditional('"v1"', "Cache-Control: max-age=1")
    check("a client that has it gets 304 even from a miss", ask("/etag", 'If-None-Match: "v1"').status == 304)
    check("for which the origin was asked for all of it", origin.last("/etag").get("If-None-Match") is None)
    check("a client that has it gets 304 from a hit", ask("/etag", 'If-None-Match: W/"v1"').status == 304)
    time.sleep(1.1)
    origin.pages["/etag"] = conditional('"v1"', "Cache-Control: max-age=3600")
    answer = ask("/etag")
    check("past its lifetime it is revalidated",
          state(answer) == "REVALIDATED" and answer.text == b"body" and answer.status == 200, state(answer))
    check("with its entity tag", origin.last("/etag").get("If-None-Match") == '"v1"')
    check("and is fresh again", state(ask("/etag")) == "HIT")
    origin.pages["/etag"] = conditional('"v2"', "Cache-Control: max-age=3600", body=b"new")
    answer = ask("/etag", "Cache-Control: no-cache")
    check("a page that has changed is another one", state(answer) == "MISS" and answer.text == b"new", state(answer))
    check("for all", ask("/etag").text == b"new")


def check_variants():
    def by_language(handler):
        language = handler.headers.get("Accept-Language", "none")
        handler.reply(200, [("Cache-Control", "max-age=3600"), ("Vary", "Accept-Language")], language.encode())

    origin.pages["/vary"] = by_language
    for language in ("de", "en", "de", "en", "fr", "de"):
        check(f"{language} gets {language}", ask("/vary", f"Accept-Language: {language}").text == language.encode())
    check("each of them was made once", origin.count("/vary") == 3, origin.count("/vary"))
    at_once(16, lambda: ask("/vary", "Accept-Language: it"))
    check("a stampede on a variant is one request, too", origin.count("/vary") == 4, origin.count("/vary"))
    origin.pages["/post-vary"] = page()
    ask("/vary", method="POST", body=b"x")
    check("POST makes all variants old", ask("/vary", "Accept-Language: de").getheader("X-Cache") == "MISS")


def check_users():
    def whoami(handler):
        who = handler.headers.get("Cookie") or handler.headers.get("Authorization") or "nobody"
        handler.reply(200, [("Cache-Control", "max-age=3600")], who.encode())

    origin.pages["/me"] = whoami
    users = [("Cookie: alice", b"alice"), ("Cookie: bob", b"bob"), ("Authorization: carol", b"carol"), (None, b"nobody")]
    right = True
    for _ in range(4):
        for header, expected in users:
            right = right and ask("/me", *([header] if header else [])).text == expected
    check("nobody gets another user's page", right)
    origin.pages["/cookie"] = page("Cache-Control: max-age=3600", "Set-Cookie: id=1")
    ask("/cookie")
    check("Set-Cookie is not cached", state(ask("/cookie")) == "MISS")
    origin.pages["/private"] = page("Cache-Control: private, max-age=3600")
    ask("/private")
    check("nor is what is private", state(ask("/private")) == "MISS")


class Visits:
    """Twelve at one time for a page that is nobody else's: each must find the origin while the others are there."""

    def __init__(self, path, control, header):
        self.path, self.control, self.header = path, control, header
        self.numbers, self.alone = iter(range(100)), threading.Lock()

    def answer(self, handler):
        try:
            if self.gate.parties == 11 and self.alone.acquire(blocking=False):
                time.sleep(0.3)  # the first, so that there is somebody who waits
            else:
                self.gate.wait(SOON)
        except threading.BrokenBarrierError:
            self.late.append(1)
        handler.reply(200, [("Cache-Control", self.control)])

    def all_good(self, parties):
        self.gate, self.late = threading.Barrier(parties), []
        origin.pages[self.path] = self.answer
        headers = [[self.header % next(self.numbers)] if self.header else [] for _ in range(12)]
        got = at_once(12, lambda: ask(self.path, *headers.pop()).status)
        return got == [200] * 12 and not self.late


def check_unshared():
    """RFC 9111, 4: requests share one answer only where it may be reused. Who waits for one that may not asks at once."""
    paths = {}
    for name, field, header in (("no-store", "no-store", None), ("a cookie each", "max-age=60", "Cookie: id=%d"),
                                ("private pages", "private", "Authorization: %d")):
        for number in range(TRIES):
            paths[name] = path = f"/unshared/{name.replace(' ', '-')}/{number}"
            visits = Visits(path, field, header)
            first, later = visits.all_good(11), visits.all_good(12)
            if first and later:
                break
        check(f"{name}: who waits goes to the origin at once, with all others", first)
        check(f"{name}: and those who come later do not wait at all", later)

    origin.pages[paths["a cookie each"]] = page("Cache-Control: max-age=3600", delay=0.3)
    at_once(12, lambda: ask(paths["a cookie each"]))
    check("those without a cookie share all the same", origin.count(paths["a cookie each"]) == 25,
          origin.count(paths["a cookie each"]))
    origin.pages[paths["no-store"]] = page("Cache-Control: max-age=3600", delay=0.3)
    check("a page that may be shared at last is stored",
          [state(ask(paths["no-store"])) for _ in range(2)] == ["MISS", "HIT"])
    origin.pages[paths["no-store"]] = page(delay=0)
    ask(paths["no-store"], method="POST", body=b"x")
    origin.pages[paths["no-store"]] = page("Cache-Control: max-age=3600", delay=0.3)
    before = origin.count(paths["no-store"])
    at_once(12, lambda: ask(paths["no-store"]))
    check("and shared from then on", origin.count(paths["no-store"]) == before + 1, origin.count(paths["no-store"]))


def check_race():
    """What was asked before an invalidation is not stored after it, also where nobody held a lease."""
    origin.pages["/race"] = page("Cache-Control: no-store")
    ask("/race")
    asked, go_on = threading.Event(), threading.Event()

    def slow(handler):
        asked.set()
        go_on.wait(PATIENCE)
        handler.reply(200, [("Cache-Control", "max-age=3600")], b"old")

    origin.pages["/race"] = slow
    got = []
    reader = threading.Thread(target=lambda: got.append(ask("/race").text))
    reader.start()
    asked.wait(PATIENCE)
    origin.pages["/race"] = page()
    ask("/race", method="PUT", body=b"x")
    go_on.set()
    reader.join(PATIENCE)
    origin.pages["/race"] = page("Cache-Control: max-age=3600", body=b"new")
    check("a page that was asked for before a PUT is its client's alone", got == [b"old"] and ask("/race").text == b"new", got)

    asked.clear(), go_on.clear()
    origin.pages["/race-head"] = slow
    head = threading.Thread(target=lambda: got.append(ask("/race-head", method="HEAD").status))
    head.start()
    asked.wait(PATIENCE)
    origin.pages["/race-head"] = page("Cache-Control: max-age=3600", body=b"page")
    waited = ask("/race-head")
    check("GET does not wait for a HEAD, which fills nothing", waited.text == b"page" and len(got) == 1, got)
    go_on.set()
    head.join(PATIENCE)
    check("which is answered, too", got[1:] == [200], got)


def check_invalidation():
    origin.pages["/item"] = page("Cache-Control: max-age=3600")
    origin.pages["/list"] = page("Cache-Control: max-age=3600")
    ask("/item"), ask("/list")
    origin.pages["/item"] = page("Location: /list", status=201)
    answer = ask("/item", method="PUT", body=b"changed")
    check("PUT is passed on with its body", answer.status == 201 and state(answer) == "BYPASS")
    origin.pages["/item"] = page("Cache-Control: max-age=3600", body=b"changed")
    check("and makes the page old", ask("/item").text == b"changed")
    check("and what its Location names", state(ask("/list")) == "MISS")
    origin.pages["/item"] = page(status=500)
    ask("/item", method="PUT", body=b"x")
    check("one that failed does not", state(ask("/item")) == "HIT")


def check_stale():
    origin.pages["/swr"] = page("Cache-Control: max-age=1, stale-while-revalidate=3600", body=b"old")
    ask("/swr")
    time.sleep(1.1)
    release = threading.Event()

    def slow(handler):
        release.wait(PATIENCE)
        handler.reply(200, [("Cache-Control", "max-age=3600")], b"new")

    origin.pages["/swr"] = slow
    answers = [ask("/swr") for _ in range(10)]
    check("a stale page is served while it is renewed",
          all(a.text == b"old" and state(a) == "STALE" for a in answers), [state(a) for a in answers])
    check("by one request", within(lambda: origin.count("/swr") == 2) and origin.count("/swr") == 2)
    release.set()
    check("and then the new one is", within(lambda: ask("/swr").text == b"new"))
    check("for which nobody had to ask again", origin.count("/swr") == 2, origin.count("/swr"))

    origin.pages["/sie"] = page("Cache-Control: max-age=1, stale-if-error=3600")
    ask("/sie")
    time.sleep(1.1)
    origin.pages["/sie"] = page(status=503)
    answer = ask("/sie")
    check("a stale page stands in for an origin that fails", answer.status == 200 and state(answer) == "STALE")


def check_streams():
    big = os.urandom(1 << 16) * 48  # 3 MiB
    origin.pages["/big"] = page("Cache-Control: max-age=3600", body=big)
    check("a large body comes whole", ask("/big").text == big)
    check("the second time, too", ask("/big").text == big)
    check("and is not cached", origin.count("/big") == 2)
    go_on = threading.Event()

    def halting(handler):
        handler.send_response_only(200)
        handler.send_header("Content-Length", str(len(big)))
        handler.end_headers()
        handler.wfile.write(big[: 2 << 20])
        go_on.wait(PATIENCE)
        handler.wfile.write(big[2 << 20 :])

    origin.pages["/halting"] = halting
    connection = http.client.HTTPConnection(address(), timeout=PATIENCE)
    connection.request("GET", "/halting")
    answer = connection.getresponse()
    first = answer.read(1 << 20)
    check("it is passed on before the origin has sent all", not go_on.is_set() and first == big[: 1 << 20])
    go_on.set()
    check("up to its end", first + answer.read() == big)
    connection.close()

    def chunked(handler):
        handler.send_response_only(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Cache-Control", "max-age=3600")
        handler.end_headers()
        for piece in (b"one ", b"two"):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    origin.pages["/chunked"] = chunked
    ask("/chunked")
    answer = ask("/chunked")
    check("a chunked body is cached", state(answer) == "HIT" and answer.text == b"one two")

    origin.pages["/open"] = lambda handler: handler.reply(200, [("Cache-Control", "max-age=3600")], framed=False)
    ask("/open")
    check("one of which nobody knows the end is not", state(ask("/open")) == "MISS")

    def short(handler):
        handler.send_response_only(200)
        handler.send_header("Content-Length", "100")
        handler.send_header("Cache-Control", "max-age=3600")
        handler.end_headers()
        handler.wfile.write(b"short")
        handler.close_connection = True

    origin.pages["/short"] = short
    check("one that is cut off is an error", ask("/short").status == 502)
    origin.pages["/short"] = page(body=b"whole")
    check("and leaves nothing", ask("/short").text == b"whole")


def check_overflow():
    """Pages of more than 1 MiB whose length is not known before."""
    pieces = [bytes([65 + n]) * (1 << 16) for n in range(24)]
    whole, headers = b"".join(pieces), "Cache-Control: max-age=3600"
    begin, ended = threading.Event(), threading.Event()

    def grown(handler):
        begin.wait(PATIENCE)
        try:
            handler.send_response_only(200)
            handler.send_header("Cache-Control", "max-age=3600")
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for piece in pieces:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                time.sleep(0.005)  # so that it comes piece by piece
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:  # nobody wants it
            handler.close_connection = True
        ended.set()

    def all_good(path, good):
        for _ in range(10):
            text = ask(path).text
            if text not in good:
                return f"{len(text)} bytes"
            time.sleep(0.05)
        return None

    origin.pages["/grown"] = page("Cache-Control: max-age=1, stale-while-revalidate=3600", body=b"small")
    ask("/grown")
    time.sleep(1.1)
    begin.set()
    origin.pages["/grown"] = grown
    check("a page that grows too large is renewed in the background", state(ask("/grown")) == "STALE")
    ended.wait(PATIENCE)
    wrong = all_good("/grown", (b"small", whole))
    check("and its beginning never becomes the page", wrong is None, wrong)

    begin.clear(), ended.clear()
    origin.pages["/left"] = grown
    with connect() as connection:
        connection.sendall(b"GET /left HTTP/1.1\r\nHost: a\r\n\r\n")
        within(lambda: origin.count("/left") == 1)
    time.sleep(0.2)
    begin.set(), ended.wait(PATIENCE)
    wrong = all_good("/left", (whole,))
    check("nor where the client has left before it came", wrong is None, wrong)

    big = os.urandom(1 << 16) * 48

    def cut(handler):
        handler.send_response_only(200)
        handler.send_header("Content-Length", str(len(big)))
        handler.end_headers()
        handler.wfile.write(big[: 2 << 20])
        handler.close_connection = True

    origin.pages["/cut"] = cut
    origin.pages["/old-client"] = page(headers, body=big)
    seen = []
    for _ in range(8):
        try:
            seen.append(len(ask("/cut").text))
        except (http.client.HTTPException, OSError):
            pass
    check("a large body that is cut off is seen to be", not seen, seen)
    texts = [raw(b"GET /old-client HTTP/1.0\r\nHost: a\r\n\r\n").split(b"\r\n\r\n", 1)[1] for _ in range(8)]
    check("HTTP/1.0 gets a large body whole", all(text == big for text in texts), [len(text) for text in texts])

    origin.pages["/post-big"] = page(headers, body=b"old")
    ask("/post-big")
    origin.pages["/post-big"] = page(body=big)
    check("the large answer to a POST comes whole", ask("/post-big", method="POST", body=b"x").text == big)
    origin.pages["/post-big"] = page(headers, body=b"new")
    check("and makes the page old", ask("/post-big").text == b"new")


def check_requests():
    """What a client may ask for that the next one must not feel."""
    origin.pages["/with-body"] = page("Cache-Control: max-age=3600")
    answer = ask("/with-body", body=b"hello")
    check("a GET with a body is asked for without", answer.status == 200 and
          origin.last("/with-body").get("Content-Length") is None, answer.status)

    origin.pages["/smuggled"] = page()
    inner = b"GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    for framing, body in ((b"Content-Length: %d" % len(inner), inner),
                          (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner))):
        answers = raw(b"HEAD /head HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n%s" % (framing, body))
        check(f"a HEAD with a body is refused ({framing.decode().split(':')[0]})",
              answers.startswith(b"HTTP/1.1 400 ") and answers.count(b"HTTP/1.1") == 1, answers)
    check("and the body is no request", origin.count("/smuggled") == 0)

    origin.pages["/head-miss"] = page(body=b"x" * 1234)
    answer = ask("/head-miss", method="HEAD")
    check("HEAD has the length that GET would have",
          answer.status == 200 and answer.getheader("Content-Length") == "1234", answer.getheader("Content-Length"))

    def by_host(handler):
        text = handler.headers.get("Host", "none") + handler.headers.get("X-Language", "none")
        handler.reply(200, [("Cache-Control", "max-age=3600"), ("Vary", "X-Language")], text.encode())

    origin.pages["/nominated"] = by_host
    answer = ask("/nominated", "Connection: close, Host, X-Language", "X-Language: de")
    check("what Connection takes away is no entry", state(answer) == "BYPASS", state(answer))
    check("and Host goes on all the same", answer.text == address().encode() + b"none", answer.text)
    check("so that others get theirs",
          ask("/nominated", "X-Language: de").text == address().encode() + b"de")


# ---- cases.txt ----------------------------------------------------------------------------------------


def headers_of(parts, now):
    fields = []
    for part in parts:
        name, value = part.split(":", 1)
        value = value.strip()
        fields.append((name, formatdate(now + int(value[1:]), usegmt=True) if value.startswith("@") else value))
    return fields


def request_of(cell):
    parts = cell.split(" ; ")
    method, target = "GET", "/"
    if re.match(r"[A-Za-z]+ /", parts[0]):
        method, target = parts.pop(0).split(" ", 1)
    return method, target, [p for p in parts if p != "-"]


def check_cases():
    """Those of the gateway under its plain policy, whose second request comes at once or a second later."""
    now = int(time.time())
    chosen = []
    with open(os.path.join(SOURCE, "tests/http/cases.txt"), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            cells = [c.strip() for c in line.rstrip("\n").split("|")]
            if line.startswith("#") or len(cells) != 8 or cells[1] != "gateway" or cells[5] not in ("0", "1"):
                continue
            chosen.append((number, line.strip(), cells))
    for number, line, cells in chosen:
        first = cells[3].split(" ; ")
        status, framed = int(first[0].split(" ")[0]), "open" not in first[0]
        fields = headers_of(first[1:], now)

        def answer(handler, status=status, framed=framed, fields=fields):
            handler.reply(status, fields, framed=framed)

        origin.pages[f"/case/{number}"] = answer
        method, _, parts = request_of(cells[2])
        ask(f"/case/{number}", *(f"{n}: {v}" for n, v in headers_of(parts, now)), method=method)
    time.sleep(1.05)
    wrong = []
    for number, line, cells in chosen:
        path = f"/case/{number}"
        before = origin.count(path)
        method, _, parts = request_of(cells[6])
        answer = ask(path, *(f"{n}: {v}" for n, v in headers_of(parts, now)), method=method)
        decision = cells[7].split(" ; ")[0].split(" ")
        if decision[0] == "serve":
            good = origin.count(path) == before and answer.status == int(decision[1])
        elif decision[0] == "stale":
            good = state(answer) == "STALE" and answer.status == int(decision[1])
        elif decision[0] == "unavailable":
            good = origin.count(path) == before and answer.status == 504
        else:
            good = origin.count(path) == before + 1
        if not good:
            wrong.append(f"{number}: {answer.status} {state(answer)}: {line}")
    check(f"{len(chosen)} cases are decided as in cases.txt", len(chosen) >= 25 and not wrong, "\n".join(wrong))


# -------------------------------------------------------------------------------------------------------


def check_without_its_origin():
    origin.shutdown()
    origin.server_close()
    check("without its origin, what is cached is served", state(ask("/cold")) == "HIT")
    check("and the rest is 502", ask("/other").status == 502)


def said_by(*options):
    done = subprocess.run([SERVER, *options], capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


def check_options():
    status, _, error = said_by("--upstream", "https://example.org")
    check("an origin that is none is refused", status == 2 and "http://ADDRESS" in error, error)
    status, out, error = said_by("--help")
    check("--help tells of every option", status == 0 and error == "" and
          all(f"--{name} " in out for name in ("log", "upstream", "upstream-timeout-ms", "dir", "map", "workers", "port",
                                               "origin-ms")), out)
    status, _, error = said_by("--colour", "red")
    check("an option that there is not is named", status == 2 and "--colour" in error, error)
    status, _, error = said_by("--upstream", "http://127.0.0.1", "surplus")
    check("and so is a word too much", status == 2 and "'surplus'" in error, error)
    status, _, error = said_by("--upstream", "http://127.0.0.1", "--upstream-timeout-ms", "0")
    check("and a time that is none", status == 2 and "--upstream-timeout-ms" in error, error)


origin.pages["/nothing"] = page()
run([check_stampede, check_headers, check_revalidation, check_variants, check_users, check_unshared, check_race, check_invalidation, check_stale,
     check_streams, check_overflow, check_requests, check_cases, check_without_its_origin, check_options])
