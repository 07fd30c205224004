"""`llmctl report --serve`: the page made anew when the run has changed, on this machine alone."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from llmctl.errors import StageFailed
from llmctl.runs.store import Run
from llmctl.views.report.collect import MARKS, collect, status_of
from llmctl.views.report.page import figures, make_page

HOST = "127.0.0.1"
SECONDS = 3  # between two questions of the page whether the run has changed
REST = 20.0  # times what a page took to make, until another is made: the run may be training on the same cores
WATCHED = (*MARKS, "scores.json", "answers.json", "long/scores.json")
SCRIPT = (
    """
(() => {
  const key = 'report-place', place = JSON.parse(sessionStorage.getItem(key) || 'null')
  const folds = () => [...document.querySelectorAll('details')]
  if (place) {
    folds().forEach((one, at) => { if (place.titles[at] !== undefined) one.open = place.titles[at] })
    scrollTo(0, place.y)
  }
  setInterval(async () => {
    try {
      const stamp = await (await fetch('/stamp', {cache: 'no-store'})).text()
      if (stamp !== 'STAMP') {
        sessionStorage.setItem(key, JSON.stringify({y: scrollY, titles: folds().map(one => one.open)}))
        location.reload()
      }
    } catch { document.title = 'ended: ' + document.title.replace('ended: ', '') }
  }, SECONDS * 1000)
})()
"""
).replace("SECONDS", str(SECONDS))


class LivePage:
    """The page of a run, made when it is asked for and the run is not as it was; `rest`: as REST."""

    def __init__(self, run: Run, rest: float = REST) -> None:
        self.run, self.rest = run, rest
        self._lock = threading.Lock()
        self._made: tuple[str, bytes] = ("", b"")
        self._due = 0.0

    def stamp(self) -> str:
        """Of the page that would be answered: changes when the run does, once another page is due."""
        return self._made[0] if time.monotonic() < self._due else str(hash(tuple(self._seen())))

    def _seen(self) -> Iterator[tuple[str, ...]]:
        """Raises:
        FileNotFoundError: the folder of the run is gone.
        """
        self.run.folder.stat()
        for artifact in self.run.artifacts:
            yield artifact.name, status_of(artifact)  # a process that was killed changes no file
            for name in WATCHED:
                try:
                    found = (artifact.folder / name).stat()
                except FileNotFoundError:
                    continue
                yield artifact.name, name, str(found.st_mtime_ns), str(found.st_size)

    def page(self) -> bytes:
        with self._lock:
            stamp = self.stamp()
            if stamp != self._made[0]:
                began = time.monotonic()
                self._made = (stamp, self._make(stamp))
                self._due = time.monotonic() + self.rest * (time.monotonic() - began)
            return self._made[1]

    def _make(self, stamp: str) -> bytes:
        record = collect(self.run.folder)
        return make_page(record, figures(record), SCRIPT.replace("STAMP", stamp)).encode()


def of_this_machine(host: str) -> bool:
    """Whether a request's Host header names this machine, with a port or, as for port 80, without one."""
    try:
        return urlsplit(f"//{host}").hostname in (HOST, "localhost")
    except ValueError:
        return False


def server(run: Run, port: int, rest: float = REST) -> ThreadingHTTPServer:
    """A server on the loopback interface alone. Port 0: one that is free; `rest`: as REST.

    Raises:
        StageFailed: the port is taken, or may not be used.
    """
    live = LivePage(run, rest)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page elsewhere whose name is made to mean this machine is not to read the run.
            if not of_this_machine(self.headers.get("Host", "")):
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path == "/":
                self._answer(live.page, "text/html; charset=utf-8")
            elif self.path == "/stamp":
                self._answer(lambda: live.stamp().encode(), "text/plain")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, make: Callable[[], bytes], kind: str) -> None:
            try:
                body = make()
            except FileNotFoundError:
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "the folder of the run is gone")
                return
            with suppress(ConnectionError):  # a browser that has left
                self._send(body, kind)

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class's name)
            """Requests are not told."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        why = {errno.EADDRINUSE: "another program has it", errno.EACCES: "it takes more rights than you have"}
        told = why.get(error.errno or 0, str(error.strerror))
        raise StageFailed(f"--port {port}: {told}; name another, or 0 for one that is free") from None


def serve(run: Run, port: int) -> None:
    """Answer until Ctrl-C."""
    with server(run, port) as listening:
        try:
            host, chosen = listening.server_address[:2]
            print(f"the report of {run.name}, live: http://{host}:{chosen}/ (Ctrl-C ends)", flush=True)
            listening.serve_forever()
        except KeyboardInterrupt:
            print("ended")
