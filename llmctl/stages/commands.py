"""The commands that make an artifact again, as a shell script."""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from llmctl.recipe.schema import STAGE_TABLES
from llmctl.runs.artifact import Artifact
from llmctl.runs.store import RunStore

COMMANDS = {"corpus": "curate", "tokenizer": "tokenizer train", "lora": "sft --lora"}
"""Of kinds whose command is not called as they are."""
BY_RUN = ("tokens", "eval", "average")
"""Kinds that only `llmctl run` makes."""


def script(artifact: Artifact, line: Sequence[Artifact], recipes: Mapping[str, Sequence[Artifact]], folder: str | None) -> str:
    """line: the artifact and all that it is made of, parents first
    recipes: by file name, the artifacts that it is to make
    folder: where relative paths of the recipes are seen from; None: there are none
    """
    made = [command for file, targets in recipes.items() for command in recipe_commands(file, targets, line)]
    made += [by_hand(one) for one in line if one.by_command]
    compared = shlex.join(["llmctl", "verify", _name(artifact), "--expect", artifact.output_hash])
    seen_from = [f"cd {shlex.quote(folder)}"] if folder else []
    return "\n".join([*map(_one_line, header(artifact)), *environment(artifact), *seen_from, "", *made, "", compared, ""])


def header(artifact: Artifact) -> Iterator[str]:
    manifest, hardware = artifact.manifest, artifact.manifest["hardware"]
    memory = f"{hardware['memory_bytes'] / 2**30:.0f} GiB" if hardware.get("memory_bytes") else "unknown memory"
    gpus = ", ".join(hardware.get("gpus") or []) or "no GPU"
    yield "#!/usr/bin/env bash"
    yield f"# Makes {_name(artifact)} ({artifact.key}) again and compares its output hash with the one on record."
    yield "#"
    yield "#     bash commands.sh                    with the llmctl that is installed"
    yield "#     LLMCTL=FOLDER bash commands.sh      in a fresh environment, with llmctl from the source in FOLDER"
    yield "#"
    yield f"# Made on {time.strftime('%Y-%m-%d', time.gmtime(manifest['ended']))} in {manifest['seconds']:,.0f} s, by"
    yield f"#     {hardware.get('cores', '?')} cores of {hardware.get('processor') or 'an unknown processor'}, {memory}, {gpus}"
    yield f"#     {hardware.get('system', 'an unknown system')}"
    yield f"#     {', '.join(f'{name} {version}' for name, version in manifest['versions'].items()) or 'unknown versions'}"
    if _trains(artifact):
        yield f"#     {ranks_of(artifact)} rank{'s' if ranks_of(artifact) > 1 else ''}; seed {manifest['recipe'].get('seed', 1)}"
    yield "# The same bits come of the same versions on the same kind of hardware with as many ranks; elsewhere they may differ."


def environment(artifact: Artifact) -> Iterator[str]:
    versions = artifact.manifest["versions"]
    python = ".".join(versions.get("python", "3").split(".")[:2])
    yield "set -euo pipefail"
    yield 'here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"'
    yield 'export LLMCTL_RUNS="${RUNS:-$here/runs}"'
    yield 'if [ -n "${LLMCTL:-}" ]; then'
    yield f'  {shlex.quote(f"python{python}")} -m venv "$here/venv"'
    yield '  . "$here/venv/bin/activate"'
    yield '  pip install "$LLMCTL" -c "$here/requirements.txt"'
    yield "fi"
    if "llmctl" in versions:
        yield f"llmctl --version  # was {_one_line(versions['llmctl'])}"


def requirements(artifact: Artifact) -> str:
    """The versions of the manifest. Which build of a version it was (`+cpu`) pip is only told in a comment: no index has all."""
    lines = []
    for name, version in artifact.manifest["versions"].items():
        if name not in ("python", "llmctl"):
            plain, _, build = _one_line(version).partition("+")
            lines.append(f"{_one_line(name)}=={plain}" + (f"  # the build +{build}" if build else ""))
    return "\n".join(lines) + "\n"


def recipe_commands(file: str, targets: Sequence[Artifact], line: Sequence[Artifact]) -> Iterator[str]:
    """A command for every target. One for a stage before it, too, where that had other ranks than the next one."""
    run = targets[0].run
    trained = [one for one in line if one.run == run and _trains(one)]
    changes = [one for one, following in pairwise(trained) if ranked(one) != ranked(following)]
    on_the_way = {before.folder for target in targets for before in RunStore.of(target).ancestry(target)[1:]}
    last_ones = [target for target in targets if target.folder not in on_the_way]
    for one in [*(one for one in changes if one not in last_ones), *last_ones]:
        kind = one.manifest["kind"]
        by_run = kind in BY_RUN
        verb = "run" if by_run else COMMANDS.get(kind) or shlex.quote(kind)
        last = one if _trains(one) else trained[-1] if trained and by_run else None
        only = f" --stage {shlex.quote(one.stage)}" if by_run else ""
        yield f'llmctl {verb} "$here/{file}"{only}{ranked(last) if last is not None else ""}'


def by_hand(artifact: Artifact) -> str:
    """The command of an average or a merge."""
    made = artifact.manifest["recipe"]
    end = ["--name", artifact.stage, "--run", artifact.run]
    if "checkpoints" in made:
        rows = made["checkpoints"]
        return f"llmctl average {' '.join(_place(row['checkpoint']) for row in rows)} {_options(rows, end)}"
    rows = made["adapters"]
    end += ["--dtype", made["dtype"]] + (["--tolerance", repr(made["tolerance"])] if made.get("tolerance") is not None else [])
    places = [made["base"]["checkpoint"], *(row["adapter"] for row in rows)]
    return f"llmctl merge {' '.join(map(_place, places))} {_options(rows, end)}"


def _options(rows: Sequence[dict[str, Any]], further: Sequence[str]) -> str:
    return shlex.join(["--weights", ",".join(repr(row["weight"]) for row in rows), *further])


def _one_line(text: str) -> str:
    """A comment ends with its line."""
    return " ".join(text.splitlines())


def _place(name: str) -> str:
    return shlex.quote(name) if name.startswith("/") else f'"$LLMCTL_RUNS"/{shlex.quote(name)}'


def _trains(artifact: Artifact) -> bool:
    return artifact.manifest["kind"] in STAGE_TABLES and artifact.manifest["kind"] != "average"


def ranks_of(artifact: Artifact) -> int:
    """Ranks that the stage trained on: each leaves a shard of the trainer's state."""
    return max(1, sum(path.startswith("trainer/shard-") for path in artifact.manifest["files"]))


def ranked(artifact: Artifact) -> str:
    return f" --{'gpus' if artifact.manifest['hardware'].get('gpus') else 'processes'} {ranks_of(artifact)}"


def _name(artifact: Artifact) -> str:
    return f"{artifact.run}/{artifact.stage}"
