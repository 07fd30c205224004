"""What artifacts were made from that no run made: sources of text, models, templates. Whether it is still the same."""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmctl.recipe.fields import BUILTIN, is_path
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import expanded
from llmctl.runs.keys import fingerprint_path
from llmctl.runs.store import RunStore

Standing = Literal["same", "changed", "unknown"]


@dataclass(frozen=True, slots=True)
class Input:
    artifact: Artifact
    """That was made from it."""
    name: str
    place: str
    """Path, address, hub name, or a name that begins with `builtin:`."""
    sha256: str | None
    """When it was read; None where none was taken."""


@dataclass(frozen=True, slots=True)
class Checked:
    input: Input
    standing: Standing
    what: str
    """For the reader; empty where it is the same."""


def all_inputs(artifacts: Iterable[Artifact]) -> list[Input]:
    """Of artifacts with a manifest that can be read; a place that two were made from with one hash, once."""
    found = [one for artifact in artifacts if artifact.readable for one in inputs_of(artifact)]
    return list({(one.place, one.sha256): one for one in reversed(found)}.values())[::-1]


def inputs_of(artifact: Artifact) -> Iterator[Input]:
    """What came from outside into this one artifact, as its manifest has it."""
    made, kind = artifact.manifest["recipe"], artifact.manifest["kind"]
    if kind == "corpus":
        yield from _of_corpus(artifact, made)
    elif kind == "tokenizer":
        place = (made.get("tokenizer") or {}).get("path") or made.get("from")
        if place is not None:
            yield Input(artifact, "tokenizer", place, made.get("files"))
    elif kind == "tokens":
        corpus = RunStore.of(artifact).parents(artifact).get("corpus")
        tables = corpus.manifest["recipe"].get("corpus", {}).get("sources", {}) if corpus is not None and corpus.readable else {}
        for name, sha256 in made.get("taken over", {}).items():
            yield Input(artifact, name, tables.get(name, {}).get("path", name), sha256)
    else:
        yield from _models(artifact, made)


def _of_corpus(artifact: Artifact, made: dict[str, Any]) -> Iterator[Input]:
    left = dict(made.get("files") or {})
    for name, table in made.get("corpus", {}).get("sources", {}).items():
        if table.get("kind") != "tokens":  # which the shards are made from
            yield Input(artifact, name, table["path"], left.pop(name, None))
        if table.get("heldout") is not None:
            held_out = f"held out of {name}"
            yield Input(artifact, held_out, table["heldout"], left.pop(held_out, None))
    for place, sha256 in left.items():
        yield Input(artifact, Path(place).name, place, sha256)


def _models(artifact: Artifact, made: dict[str, Any]) -> Iterator[Input]:
    outside, stage = made.get("outside", {}), made.get("stage") or {}
    for place, sha256 in outside.items():
        yield Input(artifact, Path(place).name, place, sha256)
    named = stage.get("of") or [stage.get("from")]
    for place in named:
        if place is not None and place not in outside and place not in artifact.manifest["parents"]:
            yield Input(artifact, place, place, None)
    rows = [*made.get("checkpoints", []), *([made["base"]] if "base" in made else []), *made.get("adapters", [])]
    for row in rows:  # of `llmctl average` and `llmctl merge`
        place = row.get("checkpoint") or row["adapter"]
        if Path(place).is_absolute():  # all others are RUN/STAGE-KEY/FOLDER
            yield Input(artifact, Path(place).name, place, row.get("sha256"))


def check_input(one: Input) -> Checked:
    """Hash an input again."""
    if one.sha256 is None:
        return _without_hash(one)
    path = expanded(one.place)
    if not path.exists():
        return Checked(one, "changed", f"not there any more{'' if path.is_absolute() else f' (seen from {Path.cwd()})'}")
    try:
        same = fingerprint_path(path) == one.sha256
    except OSError as error:
        return Checked(one, "changed", f"cannot be read: {error.strerror or error}")
    return Checked(one, "same", "") if same else Checked(one, "changed", "changed since it was read (sha256 differs)")


def _without_hash(one: Input) -> Checked:
    if one.place.startswith(BUILTIN):
        then, now = one.artifact.manifest["versions"].get("python"), platform.python_version()
        if then != now:
            return Checked(one, "changed", f"is the text of this Python, {now}; it was that of Python {then or 'unknown'}")
        if "packages" in one.place:
            return Checked(one, "unknown", "the packages installed beside llmctl: which there were then is not on record")
        return Checked(one, "same", "")
    here = is_path(one.place) and expanded(one.place).exists()
    return Checked(one, "unknown", "no hash was taken" if here else "from the hub or the web, no hash was taken")
