"""proxy_harness.py: the example server as a caching reverse proxy between an origin of ours, which answers as a scene
wants it (also with bytes that are no HTTP), and clients: http.client, sockets. For proxy_scenes.py and proxy_hostile_scenes.py."""

import http.client
import http.server
import os
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 60  # seconds that anything may take on a busy machine
SOURCE = os.path.abspath(os.environ.get("srcdir", "."))
SERVER = os.path.join(os.path.dirname(os.environ["LARDERD"]), "examples", "server")

# ---- The origin ---------------------------------------------------------------------------------------


class Origin(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.pages = {}  # path: function of the handler
        self.asked = {}  # path: the requests' headers
        self.bodies = {}  # path: the last request's
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # the proxy has left: that is what some scenes are about

    def count(self, path):
        with self.lock:
            return len(self.asked.get(path, []))

    def last(self, path):
        with self.lock:
            return self.asked[path][-1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        path = self.path.split("?")[0]
        if self.headers.get("Expect") or self.headers.get("Transfer-Encoding"):
            return self.reply(500, body=b"the proxy is to send what it has")
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        with self.server.lock:
            self.server.asked.setdefault(path, []).append(self.headers)
            self.server.bodies[path] = self.body
        self.server.pages[path](self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = handle_any

    def reply(self, status=200, headers=(), body=b"body", framed=True):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        bodiless = status in (204, 304) or status < 200
        if framed and not bodiless and not any(n.lower() == "content-length" for n, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        if not framed:
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD" and not bodiless:
            self.wfile.write(body)

    def raw(self, *pieces):
        """These bytes are all of the answer."""
        self.close_connection = True
        for piece in pieces:
            self.wfile.write(piece)

    def log_message(self, *arguments):
        pass


def page(*headers, status=200, body=b"body", delay=0.0):
    def answer(handler):
        time.sleep(delay)
        handler.reply(status, [tuple(h.split(": ", 1)) for h in headers], body)

    return answer


def conditional(etag, *headers, body=b"body"):
    """A page that answers 304 to whoever has it."""

    def answer(handler):
        fields = [tuple(h.split(": ", 1)) for h in headers] + [("ETag", etag)]
        same = handler.headers.get("If-None-Match") == etag
        handler.reply(304 if same else 200, fields, body)

    return answer


# ---- The clients --------------------------------------------------------------------------------------


def ask(path, *headers, method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for header in headers:
            connection.putheader(*header.split(": ", 1))
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        answer.text = answer.read()
        return answer
    finally:
        connection.close()


def connect():
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def raw(request):
    """All that comes back for these bytes, until the proxy closes."""
    with connect() as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answers:
            return answers.read()


def state(answer):
    return answer.getheader("X-Cache")


def at_once(count, function):
    """What each of so many threads got that all began together."""
    gate, results, lock = threading.Barrier(count), [], threading.Lock()

    def run():
        gate.wait(PATIENCE)
        result = function()
        with lock:
            results.append(result)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return results


def within(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


cases = failed = 0


def check(name, good, more=""):
    global cases, failed
    cases += 1
    failed += not good
    print(f"{'ok' if good else 'not ok'} {cases} - {name}{'' if good or not more else ': ' + str(more)}", flush=True)


# ---- The proxy ----------------------------------------------------------------------------------------

origin = Origin()
port = 0


def address():
    return "127.0.0.1:%d" % port


def start(maps, complaints, *options):
    global port
    process = subprocess.Popen(
        [SERVER, "--upstream", f"http://127.0.0.1:{origin.server_port}", "--dir", maps, "--workers", "3", *options],
        stdout=subprocess.PIPE, stderr=complaints, text=True)
    line = process.stdout.readline()
    port = int(line.rsplit(":", 1)[1])
    return process


def run(scenes, *options):
    """All scenes with one proxy; ends the program."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("LARDER_TEST_DIR")) as maps, \
            tempfile.TemporaryFile("w+") as complaints:
        os.chmod(maps, 0o700)
        server = start(maps, complaints, *options)
        try:
            for scene in scenes:
                scene()
        finally:
            server.terminate()
            status = server.wait(PATIENCE)
        check("SIGTERM ends it with status 0", status == 0, status)
        complaints.seek(0)
        said = complaints.read()
        sys.stderr.write(said)
        check("no worker had to be replaced", "replacing it" not in said)
    print(f"1..{cases}")
    sys.exit(failed != 0)
