"""Whether the Hugging Face hub answers."""

import os
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from llmctl.doctor.findings import Finding, one_line
from llmctl.doctor.machine import without_password

PATIENCE = 3.0  # seconds
USUAL = "https://huggingface.co"
SETTINGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TRUE = {"1", "ON", "YES", "TRUE"}
OFFLINE = (
    "models and data by a folder's name work without it; for hub names run `hf download NAME` where there is a network, copy "
    "~/.cache/huggingface, and set HF_HUB_OFFLINE=1"
)


def check_hub() -> Iterator[Finding]:
    setting = next((name for name in SETTINGS if os.environ.get(name, "").upper() in TRUE), None)
    if setting is not None:
        yield Finding("hub", "ok", f"offline by {setting}: hub names are looked up in the cache alone")
        return
    address, started = without_password(os.environ.get("HF_ENDPOINT") or USUAL).rstrip("/"), time.perf_counter()
    outcome = answer(address)
    if outcome is None:
        yield Finding("hub", "warning", f"{address} does not answer within {PATIENCE:g} s", OFFLINE)
    elif isinstance(outcome, int) and outcome < 500 and outcome != 407:
        yield Finding("hub", "ok", f"{address} answers in {time.perf_counter() - started:.1f} s")
    else:
        told = f"{address} answers with HTTP {outcome}" if isinstance(outcome, int) else f"{address} cannot be reached: {outcome}"
        yield Finding("hub", "warning", told, OFFLINE)


def answer(address: str) -> int | str | None:
    """The HTTP status of a HEAD request, or what went wrong, or None where nothing came in time. In a thread of its own, which
    is left behind: a name server that is silent is waited for far longer than a connection."""
    found: list[int | str] = []

    def ask() -> None:
        try:
            with urlopen(Request(address, method="HEAD"), timeout=PATIENCE) as reply:
                found.append(reply.status)
        except HTTPError as error:
            found.append(error.code)
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            found.append(without_password(one_line(reason) if isinstance(reason, BaseException) else str(reason)))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE + 0.5)
    return found[0] if found else None
