"""`llmctl report` in a browser: the page from disk, and the page that follows a run."""

import http.server
import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import command, in_process
from report_run import write_run

from llmctl.errors import StageFailed
from llmctl.runs.store import Run
from llmctl.views.report.serve import SCRIPT, LivePage, server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = 390  # pixels


@contextmanager
def answering(listening: http.server.HTTPServer) -> Iterator[str]:
    """The address of a server that answers in a thread."""
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


def got(address: str, host: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(address, headers={} if host is None else {"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_the_served_page_follows_the_run(tmp_path):
    folder = write_run(tmp_path)
    (log,) = folder.glob("sft-*/log.jsonl")
    with answering(server(Run(folder), 0, rest=0.0)) as address:
        status, page = got(address)
        assert status == 200
        stamp = got(f"{address}/stamp")
        assert f"<script>{SCRIPT.replace('STAMP', stamp[1])}</script>" in page
        assert "script-src 'sha256-" in page
        assert stamp == got(f"{address}/stamp")
        with log.open("a") as lines:
            lines.write(json.dumps({"time": 1e9, "kind": "Message", "text": "a word of now", "level": "warning"}) + "\n")
        assert got(f"{address}/stamp") != stamp
        assert "a word of now" not in page
        assert "a word of now" in got(address)[1]


def test_a_page_is_not_drawn_again_while_the_last_one_is_fresh(tmp_path):
    folder = write_run(tmp_path)
    (log,) = folder.glob("sft-*/log.jsonl")
    live = LivePage(Run(folder))
    page, stamp = live.page(), live.stamp()
    log.write_text("")
    assert (live.page(), live.stamp()) == (page, stamp)
    assert LivePage(Run(folder)).page() != page


def test_the_server_tells_nothing_else_and_nobody_else(tmp_path):
    folder = write_run(tmp_path)
    with answering(server(Run(folder), 0)) as address:
        port = int(address.rpartition(":")[2])
        for path in ("/recipe.json", "/../made/recipe.json", "/favicon.ico", "//etc/passwd"):
            assert got(address + path)[0] == 404
        assert got(address, "elsewhere.example")[0] == 403
        assert got(address, f"elsewhere.example:{port}")[0] == 403
        assert got(address, "[")[0] == 403
        assert got(f"{address}/stamp", f"localhost:{port}")[0] == 200
        assert got(f"{address}/stamp", "localhost")[0] == 200  # as for port 80
        shutil.rmtree(folder)
        assert got(address)[0] == 503
        with pytest.raises(StageFailed, match=f"--port {port}: another program has it; name another, or 0"):
            server(Run(folder), port)


def test_ctrl_c_ends_the_server_with_exit_code_0(tmp_path):
    folder = write_run(tmp_path)
    serving = subprocess.Popen(
        command("report", folder, "--serve", "--port", 0), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert serving.stdout is not None
    first = serving.stdout.readline()
    assert first.startswith("the report of made, live: http://127.0.0.1:")
    serving.send_signal(signal.SIGINT)
    printed, errors = serving.communicate(timeout=60)
    assert (serving.returncode, printed, errors) == (0, "ended\n", "")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The page of a whole run, beside one that shows it as wide as a phone and names its width."""
    folder = write_run(tmp_path_factory.mktemp("browser"))
    result = in_process("report", folder, "--out", folder.parent / "page.html")
    assert result.returncode == 0, result.stderr
    frame = f"<iframe id='it' src='page.html' width='{PHONE}' height='800'></iframe>"
    ask = "document.title = 'wide: ' + document.getElementById('it').contentDocument.documentElement.scrollWidth"
    (folder.parent / "phone.html").write_text(f"<!doctype html>{frame}<script>onload = () => {{ {ask} }}</script>")
    return folder.parent / "page.html"


def browsed(address: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
             "--disable-component-update", f"--user-data-dir={folder}", "--enable-logging=stderr"]  # fmt: skip
    return subprocess.run([BROWSER, *quiet, *options, address], capture_output=True, text=True, timeout=120, env=dict(os.environ))


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_page_from_disk_without_complaint(page, tmp_path, dark):
    from PIL import Image

    picture = tmp_path / "page.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    shown = browsed(page.as_uri(), tmp_path / "profile", f"--screenshot={picture}", "--window-size=1200,1000", *scheme)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    pixels = Image.open(picture).convert("L")
    paper = pixels.getpixel((5, 500))
    assert isinstance(paper, int)
    assert (paper < 50) if dark else (paper > 200)
    shades = set(pixels.tobytes())
    assert max(shades) - min(shades) > 150  # ink on it


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed")
def test_a_phone_need_not_scroll_the_page_sideways(page, tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, directory=str(page.parent), **options)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (the base class's name)
            """Requests are not told."""

    with answering(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)) as address:
        shown = browsed(f"{address}/phone.html", tmp_path / "profile", "--dump-dom")
    (width,) = [line.partition("wide: ")[2] for line in shown.stdout.splitlines() if "wide: " in line and "<title>" in line]
    assert int(width.partition("<")[0]) <= PHONE
