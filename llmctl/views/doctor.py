"""`llmctl doctor`: what works here on one screen, or as JSON."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmctl.doctor.diagnosis import Diagnosis

COLOURS = {"ok": "green", "warning": "yellow", "missing": "dim", "broken": "bold red"}
STATUS, NAME = 9, 15  # characters of the first two columns
TELLING = ("torch", "deepspeed")  # more than that they work
NARROW = 50  # columns of a terminal below which a finding's text goes under its name


@contextmanager
def told_at_work() -> Iterator[Callable[[str], None]]:
    """What is tried at the moment, on a line of a terminal that is gone afterwards; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda name: None
        return
    from rich.console import Console

    with Console(stderr=True).status("looking around") as status:
        yield lambda name: status.update(f"trying {name} ...")


def show_diagnosis(diagnosis: "Diagnosis", as_json: bool) -> None:
    """Print it, for people or for programs."""
    if as_json:
        print(json.dumps(values_of(diagnosis), indent=2))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    title = f"llmctl {diagnosis.llmctl}{'' if diagnosis.tried else ', nothing tried (--quick)'}"
    console.print("\n".join(hanging(title, console.width)), style="bold", soft_wrap=True)
    for finding in merged(summed_up(diagnosis)):
        for number, line in enumerate(lines_of(finding, console.width)):
            text = Text(line)
            if number == 0:
                text.stylize(COLOURS[finding["status"]], 0, len(finding["status"]))
            console.print(text, soft_wrap=True)
    for line in ending(diagnosis, console.width):
        console.print(Text(line), soft_wrap=True)


def values_of(diagnosis: "Diagnosis") -> dict[str, Any]:
    """For a bug report."""
    values = asdict(diagnosis)
    install = [{"command": command, "brings": brings} for command, brings in values.pop("install")]
    return {"works": not diagnosis.failed, **values, "install": install}


def summed_up(diagnosis: "Diagnosis") -> Iterator[dict[str, Any]]:
    """All findings; packages that every run needs and that work are one."""
    yield from map(asdict, diagnosis.findings)
    core = [finding for finding in diagnosis.packages if finding.needed]
    working = [finding for finding in core if finding.status == "ok"]
    unsaid = [finding for finding in working if finding.name not in TELLING]
    named = ", ".join(f"{finding.name} {finding.version}" for finding in working)
    if working:
        yield {"name": "packages", "status": "ok", "told": f"{len(working)} of {len(core)} that every run needs: {named}"}
    for finding in diagnosis.packages:
        if finding not in unsaid:
            version = f"{finding.version}: " if finding.version else ""
            yield asdict(finding) | {"told": version + finding.told}


def merged(findings: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Neighbours of which the same is told are one: `attention: a` and `attention: b` are `attention: a, b`."""
    for _, group in groupby(findings, key=lambda finding: (finding["status"], finding["told"])):
        alike = list(group)
        topic, colon, _ = alike[0]["name"].partition(": ")
        names = [finding["name"].removeprefix(topic + colon) if colon else finding["name"] for finding in alike]
        if len(alike) == 1:
            yield alike[0]
        elif colon:
            yield alike[0] | {"name": topic, "told": f"{', '.join(names)}: {alike[0]['told']}"}
        else:
            yield alike[0] | {"name": ", ".join(names)}


def lines_of(finding: dict[str, Any], width: int) -> list[str]:
    status, name = finding["status"].ljust(STATUS), finding["name"]
    topic, colon, kind = name.partition(": ")
    told = f"{kind}: {finding['told']}" if colon else finding["told"]
    if width < NARROW:
        return [f"{finding['status']} {topic}", *wrapped(told, width, "  ")]
    head = f"{status}{topic.ljust(NAME)}"
    if len(topic) >= NAME:
        told, head = f"{topic}: {told}", status
    first, *others = wrapped(told, width - len(head), "") or [""]
    return [(head + first).rstrip(), *(" " * len(head) + line for line in others)]


def wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(text, max(width, 10), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def ending(diagnosis: "Diagnosis", width: int) -> Iterator[str]:
    """What to do, what could be installed, and the verdict."""
    everything = (*diagnosis.findings, *diagnosis.packages)
    remedies: dict[str, list[str]] = {}
    for finding in everything:
        if finding.remedy and (finding.status in ("warning", "broken") or finding.failed):
            remedies.setdefault(finding.remedy, []).append(finding.name)
    for remedy, names in remedies.items():
        yield from hanging(f"to do: {', '.join(names)}: {remedy}", width)
    for command, brings in diagnosis.install:
        yield from hanging(f"more: {command}  ({brings})", width)
    if diagnosis.failed:
        failed = ", ".join(finding.name for finding in diagnosis.failed)
        yield from hanging(f"NOT READY: every run needs what does not work here: {failed}", width)
    elif diagnosis.tried:
        yield from hanging("ready: what every run needs works", width)
    else:
        yield from hanging("what every run needs is installed; without --quick it is tried, too", width)


def hanging(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 10), subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
