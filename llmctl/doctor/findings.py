"""What a check finds, and how a check that fails is told of."""

import os
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Status = Literal["ok", "warning", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """`missing`: not there, which only `needed` things have to be. `broken`: there, and does not work."""

    name: str
    status: Status
    told: str
    remedy: str = ""
    """What mends it: a command or a sentence."""
    version: str | None = None
    needed: bool = False
    """Whether every run needs it."""

    @property
    def failed(self) -> bool:
        return self.needed and self.status in ("missing", "broken")


Check = Callable[[], Iterable[Finding]]


def guarded(name: str, check: Check) -> list[Finding]:
    """The findings of a check; where it raises, that it did."""
    try:
        return list(check())
    except Exception as error:
        return [Finding(name, "broken", one_line(error), "report it, with the output of `llmctl doctor --json`")]


def one_line(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def without_private(finding: Finding) -> Finding:
    """The same for strangers to read: the home folder is ~, and this machine has no name."""
    return replace(finding, told=public(finding.told), remedy=public(finding.remedy))


def public(text: str) -> str:
    home, host = str(Path.home()), platform.node()
    if len(home) > 1:
        text = re.sub(re.escape(home) + rf"(?=$|[{re.escape(os.sep)}\s:;,'\")])", "~", text)
    return re.sub(rf"(?<!\w){re.escape(host)}(?!\w)", "HOST", text) if host and host != "localhost" else text
