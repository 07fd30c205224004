"""A JSON request over HTTP that is tried again while a server is busy."""

import http.client
import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

LONGEST_PAUSE = 60.0  # seconds, whatever a server asks for
LONGEST_BODY = 16_000_000  # bytes


class Unreachable(Exception):
    """No answer that would be any use after the last try."""


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(
    address: str,
    body: dict[str, Any],
    headers: dict[str, str],
    timeout: float,
    tries: int,
    pause: float,
    stopped: threading.Event,
) -> Answered:
    """The answer, whatever its status, but HTTP 429, 5xx, timeouts and broken connections are tried again, up to `tries` times
    in all, after `pause` seconds at first and twice as many each time, or as many as the server asks for. Once `stopped` is
    set there are no further tries.

    Raises:
        Unreachable: the last try failed too; the message says how.
    """
    data = json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"} | headers)
    opener = urllib.request.build_opener(_NoRedirects)
    reason = ""
    for number in range(tries):
        wait = pause * 2**number
        try:
            with opener.open(request, timeout=timeout) as response:
                return Answered(response.status, _text(response))
        except urllib.error.HTTPError as error:
            said = _text(error)
            if error.code != 429 and error.code < 500:
                return Answered(error.code, said)
            reason = f"HTTP {error.code} {said}".strip()
            wait = max(wait, _asked_for(error))
        except (OSError, http.client.HTTPException) as error:
            reason = _told(error, timeout)
        if number + 1 < tries and stopped.wait(min(wait, LONGEST_PAUSE)):
            break
    raise Unreachable(reason)


def _text(response: Any) -> str:
    return response.read(LONGEST_BODY).decode("utf-8", "replace")


def _asked_for(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait for; 0 where it asks for none, or for a date."""
    try:
        return float(error.headers.get("Retry-After", "0"))
    except ValueError:
        return 0.0


def _told(error: Exception, timeout: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"it took more than {timeout:g} s"
    return str(cause) or type(cause).__name__
