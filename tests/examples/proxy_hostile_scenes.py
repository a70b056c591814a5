"""proxy_hostile_scenes.py: the example server as a caching reverse proxy between clients and an origin that are wrong, slow or
malicious: messages that can be read in two ways, heads without measure, bodies without an end, answers that nobody asked
for; curl and wrk where they are there. Each scene names what RFC 9110, 9111 or 9112 wants. Run by proxy_hostile.sh."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
import time

from proxy_harness import PATIENCE, address, ask, check, conditional, connect, origin, page, raw, run, state

FRESH = ("Cache-Control", "max-age=3600")
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
DEADLINE = 1500  # milliseconds that the origin has


def status_of(answer):
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found.group(1)) if found else None


def request(first, *fields, body=b""):
    return b"\r\n".join([first.encode(), *(f.encode("latin-1") for f in fields), b"", body])


# ---- Requests that could be read in two ways ------------------------------------------------------------


def check_framing():
    """RFC 9112, 6.1 and 6.3: refused, the connection closed, and what stands behind is no request."""
    origin.pages["/framed"] = origin.pages["/smuggled"] = page()
    chunked = b"5\r\nhello\r\n0\r\n\r\n"
    host = "Host: a"
    cases = [
        ("a length and chunks", ["Content-Length: 5", "Transfer-Encoding: chunked"], chunked, {400}),
        ("chunks and a length", ["Transfer-Encoding: chunked", "Content-Length: 15"], chunked, {400}),
        ("two lengths", ["Content-Length: 5", "Content-Length: 50"], b"hello", {400}),
        ("a list of lengths", ["Content-Length: 5, 5"], b"hello", {400}),
        ("a length with a sign", ["Content-Length: +5"], b"hello", {400}),
        ("a length below zero", ["Content-Length: -5"], b"hello", {400}),
        ("a length in hexadecimal", ["Content-Length: 0x5"], b"hello", {400}),
        ("a length that is none", ["Content-Length: five"], b"hello", {400}),
        ("an empty length", ["Content-Length:"], b"hello", {400}),
        ("white space before the colon", ["Content-Length : 5"], b"hello", {400}),
        ("a tab before the colon", ["Transfer-Encoding\t: chunked"], chunked, {400}),
        ("a name with a space", ["X Y: 1"], b"", {400}),
        ("a name that is empty", [": 1"], b"", {400}),
        ("a line without a colon", ["Nonsense"], b"", {400}),
        ("a coding that nobody knows", ["Transfer-Encoding: xchunked"], chunked, {501}),
        ("two codings", ["Transfer-Encoding: gzip, chunked"], chunked, {501}),
        ("chunked twice", ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], chunked, {400, 501}),
        ("chunked in disguise", ["Transfer-Encoding: identity, chunked"], chunked, {501}),
        ("a chunk that is no number", ["Transfer-Encoding: chunked"], b"zz\r\nhello\r\n0\r\n\r\n", {400, 413, None}),
        ("a chunk below zero", ["Transfer-Encoding: chunked"], b"-5\r\nhello\r\n0\r\n\r\n", {400, 413, None}),
    ]
    for what, fields, body, expected in cases:
        for method in ("POST", "GET", "DELETE"):
            answer = raw(request(f"{method} /framed HTTP/1.1", host, *fields, body=body + SMUGGLED))
            if status_of(answer) not in expected or answer.count(b"HTTP/1.1 ") > 1:
                break
        check(f"{what}: refused", status_of(answer) in expected and answer.count(b"HTTP/1.1 ") <= 1, answer[:200])
    answer = raw(request("POST /framed HTTP/1.0", "Transfer-Encoding: chunked", body=chunked))
    check("chunks in HTTP/1.0: refused", status_of(answer) == 400, answer[:200])
    check("the origin has heard of none of them", origin.count("/framed") == 0, origin.count("/framed"))
    check("nor of what stood behind them", origin.count("/smuggled") == 0)

    with connect() as connection:
        connection.sendall(request("POST /framed HTTP/1.1", host, "Content-Length: 5", "Content-Length: 5",
                                   "Connection: close", body=b"hello"))
        answer = connection.makefile("rb").read()
    check("the same length twice is one", status_of(answer) == 200 and origin.bodies["/framed"] == b"hello")
    for method in ("POST", "DELETE", "PUT"):
        answer = raw(request(f"{method} /framed HTTP/1.1", host, "Transfer-Encoding: chunked", "Connection: close",
                             body=b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"))
        check(f"the chunks of a {method} go on with their length",
              status_of(answer) == 200 and origin.bodies["/framed"] == b"hello world" and
              origin.last("/framed").get_all("Content-Length") == ["11"] and
              origin.last("/framed").get("Transfer-Encoding") is None, (answer[:100], origin.bodies["/framed"]))
    answer = raw(request("GET /framed HTTP/1.1", host, "Range: bytes=0-", "Content-Length: 5", "Connection: close",
                         body=b"hello"))
    check("and the body of a GET that goes by", status_of(answer) == 200 and origin.bodies["/framed"] == b"hello")


def check_extensions():
    """RFC 9112, 7.1.1: chunk extensions are ignored, of clients and of origins; those without measure are not waited for."""
    host, chunked, close = "Host: a", "Transfer-Encoding: chunked", "Connection: close"
    origin.pages["/ext"] = origin.pages["/smuggled"] = page()
    body = b'5;a=b\r\nhello\r\n6 ; a="b;c" ;d\r\n world\r\n1\t;x\r\n;\r\n0;last\r\nX-Trailer: 3;a\r\n\r\n'
    message = request("POST /ext HTTP/1.1", host, chunked, body=body)
    for pause in (0, 1):
        with connect() as connection, connection.makefile("rb") as file:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(3):  # one after the other on one connection, whole or byte by byte
                origin.bodies.pop("/ext", None)
                for piece in [message] if not pause else [bytes([byte]) for byte in message]:
                    connection.sendall(piece)
                answer = read_answer(file)
                check(f"chunk extensions are ignored ({pause}, {number})",
                      answer[0] == 200 and origin.bodies["/ext"] == b"hello world;", (answer, origin.bodies.get("/ext")))
    lines = b"5;a=b\r\n" * 3
    answer = raw(request("POST /ext HTTP/1.1", host, f"Content-Length: {len(lines)}", body=lines) +
                 request("POST /ext HTTP/1.1", host, chunked, close, body=b"%x;e\r\n%s\r\n0\r\n\r\n" % (len(lines), lines)))
    check("what looks like one and is content goes on as it is",
          answer.count(b"HTTP/1.1 200") == 2 and origin.bodies["/ext"] == lines, (answer, origin.bodies["/ext"]))
    before = origin.count("/ext")
    for what, line in (("that goes on", b"5;" + b"a" * 100000), ("that is long", b"5;" + b"a" * 10000 + b"\r\nhello\r\n0\r\n\r\n"),
                       ("without a size", b";a=b\r\nhello\r\n0\r\n\r\n"), ("behind no number", b"5,a=b\r\nhello\r\n0\r\n\r\n")):
        try:
            answer = raw(request("POST /ext HTTP/1.1", host, chunked, body=line + SMUGGLED))
        except OSError:
            answer = b""
        check(f"an extension {what} is refused", status_of(answer) in (400, 413, None) and answer.count(b"HTTP/1.1 ") <= 1,
              answer[:100])
    check("and goes no further", origin.count("/ext") == before and origin.count("/smuggled") == 0)

    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n"
    for number, pieces in enumerate(([head + b"Transfer-Encoding: chunked\r\n\r\n" + body],
                                     [head + b"transfer-encoding: Chunked\r\n\r\n5;a=", b"b\r\nhello\r\n7 ;c\r\n world;\r\n0;d\r\n\r\n"])):
        def slowly(handler, pieces=pieces):
            for piece in pieces:
                handler.wfile.write(piece)
                time.sleep(0.05)
            handler.close_connection = True

        origin.pages[f"/ext-{number}"] = slowly
        got = [ask(f"/ext-{number}") for _ in range(2)]
        check(f"an origin's chunk extensions are ignored ({number})",
              [(a.status, a.text, state(a)) for a in got] == [(200, b"hello world;", "MISS"), (200, b"hello world;", "HIT")],
              [(a.status, a.text, state(a)) for a in got])


def check_targets():
    """RFC 9112, 3.2: one Host; the absolute form's authority rules; "*" is for OPTIONS."""
    origin.pages["/target"] = lambda handler: handler.reply(200, [FRESH], handler.headers.get("Host", "none").encode())
    check("no Host is refused", status_of(raw(request("GET /target HTTP/1.1"))) == 400)
    check("two are, too", status_of(raw(request("GET /target HTTP/1.1", "Host: a", "Host: b"))) == 400)
    check("HTTP/1.0 needs none", status_of(raw(request("GET /target HTTP/1.0"))) == 200)
    for target in ("target", "ftp://a/target", "https://a/target", "http://", "http://u@a/target", "*"):
        answer = raw(request(f"GET {target} HTTP/1.1", "Host: a", "Connection: close"))
        check(f"the target {target} is refused", status_of(answer) == 400, answer[:200])
    close = "Connection: close"
    origin.pages["/spaced%20x"] = page("Cache-Control: max-age=3600", body=b"right")
    for target in ("/spaced x", "/spaced ", " /spaced", "/spaced\tx", "/spaced x HTTP/1.1", "/spaced?a b", "http://a/spaced x",
                   "http://a b/spaced", "/spaced\x01x", "/spaced\x0bx", "/spaced\x7f", "/spaced\xe4", "/spaced#a b"):
        for method in ("GET", "POST", "OPTIONS"):
            answer = raw(request(f"{method} {target} HTTP/1.1", "Host: a", close))
            if status_of(answer) != 400 or b"X-Cache" in answer:
                break
        check(f"the target {target!a} is refused here", status_of(answer) == 400 and b"X-Cache" not in answer, answer[:200])
    check("the origin has heard of none", not [path for path in origin.asked if "spaced" in path], list(origin.asked))
    answer = ask("/spaced%20x")
    check("and no page stands in the place of another", state(answer) == "MISS" and answer.text == b"right", answer.text)
    for host in ("one.example", "two.example"):
        answer = raw(request(f"GET http://{host}/target?x=1 HTTP/1.1", "Host: other", close))
        check(f"of http://{host}/ the origin hears that host", answer.endswith(host.encode()), answer[-40:])
    answer = raw(request("GET /target?x=1 HTTP/1.1", "Host: one.example", close))
    check("and its page is the host's in the other form", answer.endswith(b"one.example") and b"X-Cache: HIT" in answer)
    answer = raw(request("GET /target?x=1 HTTP/1.1", "Host: other", close))
    check("and not the one that Host named", answer.endswith(b"other"), answer[-40:])
    origin.pages["*"] = lambda handler: handler.reply(204, [("Allow", "GET")])
    answer = raw(request("OPTIONS * HTTP/1.1", "Host: a", close))
    check("OPTIONS * goes on as it is", status_of(answer) == 204 and origin.count("*") == 1, answer[:200])
    answer = raw(request("OPTIONS * HTTP/1.1", "Host: a", "Max-Forwards: 0", close))
    check("which may go no further is answered here",
          status_of(answer) == 204 and b"Allow: GET" in answer and origin.count("*") == 1, answer[:200])
    raw(request("OPTIONS * HTTP/1.1", "Host: a", "Max-Forwards: 10", close))
    check("and else goes one step less", origin.last("*").get("Max-Forwards") == "9", origin.last("*").get("Max-Forwards"))
    for method in ("TRACE", "BREW", "get"):
        answer = raw(request(f"{method} /target HTTP/1.1", "Host: a", close))
        check(f"{method} is refused", status_of(answer) in (400, 405, 501, None), answer[:100])


def check_limits():
    check("a head without measure is refused",
          status_of(raw(request("GET /target HTTP/1.1", "Host: a", "X: " + "x" * 40000))) in (400, 413, 431, None))
    check("and a target", status_of(raw(request("GET /" + "x" * 40000 + " HTTP/1.1", "Host: a"))) in (400, 413, 414, 431, None))
    many = [f"X-{n}: 1" for n in range(300)]
    check("and more than 256 fields", status_of(raw(request("GET /target HTTP/1.1", "Host: a", *many))) == 400)
    long = "x" * 12000
    origin.pages["/long-asked"] = lambda handler: handler.reply(200, [FRESH], handler.headers["X-Long"].encode())
    answer = ask("/long-asked", "X-Long: " + long)
    check("a field of 12 KiB goes on whole", answer.status == 200 and answer.text == long.encode(), answer.status)
    for size in (8191, 8192, 20000):
        origin.pages[f"/long{size}"] = page("Cache-Control: max-age=3600", "X-Long: " + "y" * size, "X" + "n" * 300 + ": 1")
        got = [ask(f"/long{size}") for _ in range(2)]
        check(f"a field of {size} bytes of the origin's comes whole, from a miss and from a hit",
              [state(a) for a in got] == ["MISS", "HIT"] and
              all(a.getheader("X-Long") == "y" * size and a.getheader("X" + "n" * 300) == "1" for a in got),
              [(a.status, state(a), len(a.getheader("X-Long") or "")) for a in got])
    origin.pages["/long-by"] = page("Cache-Control: max-age=3600", "X-Long: " + "y" * 20000)
    answer = ask("/long-by", "Range: bytes=0-")
    check("also past the cache", state(answer) == "BYPASS" and answer.getheader("X-Long") == "y" * 20000)
    origin.pages["/too-long"] = page("Cache-Control: max-age=3600", "X-Long: " + "y" * 40000)
    answer = ask("/too-long")
    check("a head of more than 32 KiB is a clear 502", answer.status == 502 and b"32 KiB" in answer.text, answer.text)
    origin.pages["/too-many"] = page(*(f"X-{n}: 1" for n in range(300)))
    answer = ask("/too-many")
    check("and so is one of more than 256 fields", answer.status == 502 and b"256" in answer.text, answer.text)
    origin.pages["/upload"] = page()
    chunks = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(20))
    with connect() as connection:
        try:
            connection.sendall(request("POST /upload HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", body=chunks))
            status = status_of(connection.makefile("rb").read())
        except OSError:
            status = None
    check("chunks without an end are refused at 1 MiB", status in (413, None) and origin.count("/upload") == 0, status)


# ---- Clients that are slow, or go ------------------------------------------------------------------------


def read_answer(file):
    """Status, fields and body of one answer on a connection that goes on."""
    status = status_of(file.readline())
    fields = http.client.parse_headers(file)
    return status, fields, file.read(int(fields.get("Content-Length", 0)))


def check_connections():
    origin.pages["/pipe"] = lambda handler: handler.reply(200, [FRESH], handler.path.encode())
    origin.pages["/pipe-slow"] = page("Cache-Control: max-age=3600", body=b"slow", delay=0.3)
    with connect() as connection:
        paths = ["/pipe-slow", "/pipe?1", "/pipe?2", "/pipe?1", "/pipe?3"]
        connection.sendall(b"".join(request(f"GET {path} HTTP/1.1", "Host: a") for path in paths))
        with connection.makefile("rb") as file:
            bodies = [read_answer(file)[2] for _ in paths]
        check("requests that come at once are answered in their order",
              bodies == [b"slow", b"/pipe?1", b"/pipe?2", b"/pipe?1", b"/pipe?3"], bodies)
    for path, what in (("/pipe?1", "a hit"), ("/pipe?half", "a miss")):
        with connect() as connection:
            connection.sendall(request(f"GET {path} HTTP/1.1", "Host: a"))
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        check(f"a client that sends no more gets {what} or an end", status_of(answer) in (200, None), answer[:100])
    with connect() as connection:
        for byte in request("GET /pipe?1 HTTP/1.1", "Host: a", "Connection: close"):
            connection.sendall(bytes([byte]))
            time.sleep(0.005)
        check("a request that drips in is one", connection.makefile("rb").read().endswith(b"/pipe?1"))
    idle = [connect() for _ in range(200)]
    for connection in idle:
        connection.sendall(b"GET /pipe?1 HTTP/1.1\r\nHo")
    check("200 clients that do not end their heads hold up nobody", ask("/pipe?1").status == 200)
    for connection in idle:
        connection.close()
    big = os.urandom(1 << 16) * 64
    origin.pages["/slowly"] = page(body=big)
    with connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(request("GET /slowly HTTP/1.1", "Host: a", "Connection: close"))
        time.sleep(DEADLINE / 1000 + 1)  # longer than an origin may be silent
        answer = connection.makefile("rb").read()
    check("a client that reads slowly gets all of 4 MiB", big[-100:] in answer and len(answer) > len(big), len(answer))
    for _ in range(30):
        with connect() as connection:
            connection.sendall(request("GET /slowly HTTP/1.1", "Host: a"))
            connection.recv(100)
    check("clients that leave in the middle harm nobody", ask("/pipe?1").status == 200)


def check_expect():
    """RFC 9110, 10.1.1: 100 at once; the origin is sent the body, and nothing to expect."""
    origin.pages["/expect"] = page(body=b"done")
    with connect() as connection, connection.makefile("rb") as file:
        connection.sendall(request("POST /expect HTTP/1.1", "Host: a", "Content-Length: 5", "Expect: 100-continue"))
        interim = file.readline() + file.readline()
        check("who expects 100 gets it", interim == b"HTTP/1.1 100 Continue\r\n\r\n", interim)
        connection.sendall(b"hello")
        check("and then the answer", read_answer(file)[::2] == (200, b"done"))
    check("the origin has the body", origin.bodies["/expect"] == b"hello")
    answer = raw(request("POST /expect HTTP/1.1", "Host: a", "Content-Length: 9999999", "Expect: 100-continue",
                         "Connection: close"))
    check("a body over the limit is refused before it is sent", status_of(answer) in (413, 417), answer[:100])


# ---- What the origin may answer --------------------------------------------------------------------------


def check_origin_framing():
    def answers(path, *pieces):
        origin.pages[path] = lambda handler: handler.raw(*pieces)
        return ask(path)

    def kept_open(path, *pieces):
        def answer(handler):
            for piece in pieces:
                handler.wfile.write(piece)

        origin.pages[path] = answer
        return ask(path)

    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n"
    answer = answers("/o-both", head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n")
    check("of a length and chunks the length does not go on",
          answer.status == 502 or (answer.text == b"body" and answer.getheader("Content-Length") == "4"), answer.status)
    check("and it is not stored", state(ask("/o-both")) != "HIT")
    for name, fields in (("two lengths", b"Content-Length: 4\r\nContent-Length: 5\r\n"),
                         ("a length that is none", b"Content-Length: +4\r\n"),
                         ("a coding that nobody knows", b"Transfer-Encoding: gzip, chunked\r\n"),
                         ("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")):
        answer = answers("/o-" + name.replace(" ", "-"), head + fields + b"\r\nbody")
        check(f"{name} of the origin's: 502", answer.status == 502, (answer.status, answer.text))
    answer = answers("/o-space", head + b"X-A : 1\r\nContent-Length: 4\r\n\r\nbody")
    check("white space before a colon is taken away", answer.status == 200 and answer.getheader("X-A") == "1")
    answer = answers("/o-name", head + b"X A: 1\r\nContent-Length: 4\r\n\r\nbody")
    check("a name that is none: 502", answer.status == 502, answer.status)
    answer = answers("/o-cr", head + b"X-A: 1\r X-B: 2\r\nContent-Length: 4\r\n\r\nbody")
    check("a line break within a field does not go on",
          answer.status == 502 or (answer.status == 200 and "\r" not in answer.getheader("X-A")), answer.status)
    for status in (b"204 No Content", b"304 Not Modified"):
        origin.pages["/o-bodiless"] = lambda handler, s=status: handler.raw(b"HTTP/1.1 " + s + b"\r\nContent-Length: 4\r\n\r\nbody")
        answers_got = raw(request("GET /o-bodiless HTTP/1.1", "Host: a", "Range: bytes=0-") +
                          request("GET /pipe?1 HTTP/1.1", "Host: a", "Connection: close"))
        bodies = answers_got.count(b"body")
        check(f"the body of a {status[:3].decode()} does not go on",
              status_of(answers_got) == int(status[:3]) and answers_got.endswith(b"/pipe?1") and bodies == 0, answers_got)
    answer = answers("/o-304", b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n")
    check("a 304 to nobody's condition: 502", answer.status == 502, answer.status)
    for junk in (b"", b"\r\n\r\n", b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n",
                 b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", b"\0" * 100, b"HTTP/9.9 200 OK\r\n\r\n"):
        answer = answers("/o-junk", junk)
        check(f"{junk[:20]!r}: 502", answer.status == 502, (answer.status, answer.text))
    answer = answers("/o-type", head + b"Content-Length: 4\r\n\r\nbody")
    check("what has no type is given none", answer.status == 200 and answer.getheader("Content-Type") is None)
    good = head + b"Content-Length: 4\r\n\r\nbody"
    for interim in (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n",
                    b"HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n", b"HTTP/1.1 103 A\r\nLink: a\r\n\r\n" * 5):
        path = f"/o-{interim[9:12].decode()}-{len(interim)}"
        answer = kept_open(path, interim, good)
        check(f"{interim[9:12].decode()} is not the answer", answer.status == 200 and answer.text == b"body" and
              answer.getheader("Link") is None and answer.getheader("X-Interim") is None, (answer.status, answer.text))
        check("and what follows it is stored without its fields",
              state(ask(path)) == "HIT" and ask(path).getheader("Link") is None)


def check_interim():
    """RFC 9110, 15.2: any number of answers of 1xx, however they come; also from an origin that closes after them."""
    good = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 4\r\n\r\nbody"
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    for name, interim in (("103", early), ("100", b"HTTP/1.1 100 Continue\r\n\r\n"), ("a lot of 1xx", early * 100),
                          ("199 by LF alone", b"HTTP/1.1 199 X\nLink: a\n\n")):
        got = []
        for n in range(20):
            path = f"/interim-{len(interim)}-{n}"
            origin.pages[path] = lambda handler, interim=interim: handler.raw(interim + good)
            answer = ask(path)
            got.append((answer.status, answer.text, answer.getheader("Link")))
        check(f"{name} and the answer at once, and the end", got == [(200, b"body", None)] * 20, got)

    def in_pieces(handler):
        handler.close_connection = True
        handler.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in early + good:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.001)

    origin.pages["/interim-pieces"] = in_pieces
    answer = ask("/interim-pieces")
    check("103 and the answer byte by byte", (answer.status, answer.text) == (200, b"body"), answer.status)
    for name, interim in (("many", early * 2000), ("large", b"HTTP/1.1 103 A\r\n" + b"Link: a\r\n" * 10000 + b"\r\n"),
                          ("long", b"HTTP/1.1 103 " + b"A" * 100000)):
        origin.pages["/interim-" + name] = lambda handler, interim=interim: handler.raw(interim + good)
        answer = ask("/interim-" + name)
        check(f"answers of 1xx that are too {name}: 502", answer.status == 502, (answer.status, answer.text))
    origin.pages["/interim-only"] = lambda handler: handler.raw(early)
    check("nothing after a 103: 502", ask("/interim-only").status == 502)


def check_origin_deadline():
    """RFC 9110, 15.6.5: 504 for who does not answer in time, however much he drips."""
    release = threading.Event()

    def silent(handler):
        release.wait(PATIENCE)

    def endless(handler):
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not release.wait(0.1):
                handler.wfile.write(b"1\r\nx\r\n")
        except OSError:
            pass
        handler.close_connection = True

    def dripping_head(handler):
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not release.wait(0.1):
                handler.wfile.write(b"X: 1\r\n")
        except OSError:
            pass
        handler.close_connection = True

    for path, function in (("/d-silent", silent), ("/d-endless", endless), ("/d-head", dripping_head)):
        origin.pages[path] = function
        before = time.monotonic()
        answer = ask(path)
        took = time.monotonic() - before
        check(f"{path[3:]}: 504 in time", answer.status == 504 and took < PATIENCE / 2, (answer.status, took))
    origin.pages["/d-sie"] = page("Cache-Control: max-age=1, stale-if-error=3600")
    ask("/d-sie")
    time.sleep(1.1)
    origin.pages["/d-sie"] = silent
    answer = ask("/d-sie")
    check("a stale page stands in for an origin that is too slow", answer.status == 200 and state(answer) == "STALE")
    origin.pages["/d-must"] = page("Cache-Control: max-age=1, must-revalidate, stale-if-error=3600", 'ETag: "m"')
    ask("/d-must")
    time.sleep(1.1)
    origin.pages["/d-must"] = lambda handler: handler.raw(b"")
    answer = ask("/d-must")
    check("what must be revalidated is 504 where that fails (RFC 9111, 5.2.2.2)", answer.status == 504, answer.status)
    release.set()
    for path in ("/d-silent", "/d-endless", "/d-head"):
        origin.pages[path] = page("Cache-Control: max-age=3600", body=b"at last")
        check(f"nothing of {path[3:]} was stored", ask(path).text == b"at last")

    def dies(handler):
        handler.raw(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")

    origin.pages["/d-dies"] = dies
    check("an origin that dies in a chunk: 502", ask("/d-dies").status == 502)
    origin.pages["/d-dies"] = page(body=b"whole")
    check("and nothing of that is stored, either", ask("/d-dies").text == b"whole")

    go_silent = threading.Event()

    def stalls(handler):
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 2000000)
            go_silent.wait(PATIENCE)
        except OSError:
            pass
        handler.close_connection = True

    origin.pages["/d-stalls"] = stalls
    try:
        got = len(ask("/d-stalls").text)
    except http.client.IncompleteRead as error:
        got = len(error.partial)
    except (OSError, http.client.HTTPException):
        got = 0
    check("an origin that stalls in what is passed on is cut off, and seen to be", got < 3000000, got)
    go_silent.set()


def check_cookies():
    """A cookie that comes with a 304 is its client's, and nobody else's."""
    def sets(handler):
        same = handler.headers.get("If-None-Match") == '"v"'
        fields = [("ETag", '"v"'), ("Cache-Control", "max-age=3600")]
        if same:
            fields.append(("Set-Cookie", "id=%d" % origin.count("/c-304")))
        handler.reply(304 if same else 200, fields, b"page")

    origin.pages["/c-304"] = sets
    check("it is stored", [state(ask("/c-304")) for _ in range(2)] == ["MISS", "HIT"])
    answer = ask("/c-304", "Cache-Control: no-cache")
    check("a cookie of a 304 comes with the page", answer.status == 200 and answer.text == b"page" and
          answer.getheader("Set-Cookie") == "id=2", (answer.status, answer.getheader("Set-Cookie")))
    answer = ask("/c-304", "Cache-Control: no-cache", 'If-None-Match: "v"')
    check("and with the client's own 304", answer.status == 304 and answer.getheader("Set-Cookie") == "id=3")
    answer = ask("/c-304")
    check("and is in no other answer", state(answer) == "HIT" and answer.getheader("Set-Cookie") is None)

    def withdraws(handler):
        same = handler.headers.get("If-None-Match") == '"v"'
        fields = [("ETag", '"v"'), ("Cache-Control", "no-store" if same else "max-age=3600")]
        handler.reply(304 if same else 200, fields, b"page")

    origin.pages["/c-withdrawn"] = withdraws
    ask("/c-withdrawn")
    check("a 304 that says no-store ends what was stored",
          ask("/c-withdrawn", "Cache-Control: no-cache").text == b"page" and state(ask("/c-withdrawn")) == "MISS")

    origin.pages["/c-weak"] = lambda handler: handler.reply(
        304 if handler.headers.get("If-None-Match") else 200,
        [("ETag", '"w"' if handler.headers.get("If-None-Match") else 'W/"w"'), FRESH],
        b"body %d" % origin.count("/c-weak"))
    ask("/c-weak")
    answer = ask("/c-weak", "Cache-Control: no-cache")
    check("a 304 with a strong tag is not for what has a weak one", answer.text == b"body 3" and state(answer) == "MISS",
          (answer.text, state(answer)))


def check_variants():
    """As many as there are values; the map stays within its size."""
    origin.pages["/v"] = lambda handler: handler.reply(200, [FRESH, ("Vary", "X-Kind")], b"%s" % handler.headers.get("X-Kind", "").encode())
    wrong = [n for n in range(400) if ask("/v", f"X-Kind: {n}").text != b"%d" % n]
    wrong += [n for n in range(0, 400, 20) if ask("/v", f"X-Kind: {n}").text != b"%d" % n]
    check("400 variants are each their own", not wrong, wrong[:10])
    origin.pages["/v-many"] = page("Cache-Control: max-age=3600", "Vary: " + ", ".join(f"X-{n}" for n in range(17)))
    ask("/v-many")
    check("a page that varies by 17 fields is not stored", state(ask("/v-many")) == "MISS")
    origin.pages["/v-star"] = page("Cache-Control: max-age=3600", "Vary: Accept, *")
    ask("/v-star")
    check("nor one that varies by anything", state(ask("/v-star")) == "MISS")


# ---- Programs that others wrote ---------------------------------------------------------------------------


def curl(path, *options):
    done = subprocess.run(["curl", "-sS", "-i", "--max-time", str(PATIENCE), *options, f"http://{address()}{path}"],
                          capture_output=True, timeout=2 * PATIENCE)
    return done.stdout


def check_curl():
    if shutil.which("curl") is None:
        return check("curl # SKIP is not there", True)
    origin.pages["/curl"] = conditional('"c"', "Cache-Control: max-age=3600", "Content-Type: text/plain", body=b"0123456789")
    check("curl gets a page", curl("/curl").endswith(b"0123456789"))
    check("a head", curl("/curl", "-I").startswith(b"HTTP/1.1 200") and b"X-Cache: HIT" in curl("/curl", "-I"))
    check("HTTP/1.0", curl("/curl", "--http1.0").endswith(b"0123456789"))
    for tags, status in (('"c"', 304), ('W/"c"', 304), ('"a", W/"c" , "d"', 304), ("*", 304), ('"a", "b"', 200), ("c", 200)):
        answer = curl("/curl", "-H", f"If-None-Match: {tags}")
        check(f"If-None-Match: {tags} is {status}", status_of(answer) == status and (status == 200) == answer.endswith(b"6789"))
    answer = curl("/curl", "-H", "Range: bytes=2-4")
    check("a range is the origin's to cut", b"X-Cache: BYPASS" in answer)
    big = "x" * 100000
    origin.pages["/curl-post"] = lambda handler: handler.reply(200, [], b"%d" % len(handler.body))
    check("a large POST, with 100-continue", curl("/curl-post", "-H", "Expect: 100-continue", "-d", big).endswith(b"100000"))
    check("and in chunks", curl("/curl-post", "-H", "Transfer-Encoding: chunked", "-d", big).endswith(b"100000"))
    answer = curl("/curl", "-H", "Connection: X-Secret, Upgrade", "-H", "X-Secret: 1", "-H", "Upgrade: h2c")
    check("what Connection names ends here", status_of(answer) == 200 and origin.last("/curl").get("X-Secret") is None and
          origin.last("/curl").get("Upgrade") is None)


def check_wrk():
    if shutil.which("wrk") is None:
        return check("wrk # SKIP is not there", True)
    origin.pages["/wrk"] = page("Cache-Control: max-age=3600", body=b"w" * 2000)
    done = subprocess.run(["wrk", "-t1", "-c24", "-d2s", "--timeout", str(PATIENCE), f"http://{address()}/wrk"],
                          capture_output=True, text=True, timeout=2 * PATIENCE)
    check("wrk sees no error", "Socket errors" not in done.stdout and "Non-2xx" not in done.stdout and
          "requests in" in done.stdout, done.stdout)
    check("and the origin one request", origin.count("/wrk") == 1, origin.count("/wrk"))


run([check_framing, check_extensions, check_targets, check_limits, check_connections, check_expect, check_origin_framing, check_interim, check_origin_deadline,
     check_cookies, check_variants, check_curl, check_wrk], "--upstream-timeout-ms", str(DEADLINE))
