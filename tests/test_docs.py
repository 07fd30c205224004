"""The pages of docs/: every `llmctl` command that they show is one, and those of the task pages are typed, in their order, with
the files that the pages say to write."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import REPOSITORY

from llmctl.cli import app

DOCS = sorted(REPOSITORY.joinpath("docs").rglob("*.md"))
TASKS = ("first-run", "own-text", "continue", "long-context", "sft", "lora", "evaluation", "many-gpus", "report", "lineage",
         "plan", "write-a-stage")  # fmt: skip
"""Pages whose ```console blocks are typed; in this order, each with the runs of those before it."""
BLOCK = re.compile(r"^```(?P<kind>\w+)(?: (?P<file>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?: {4}|\$ )(llmctl .*)$", re.MULTILINE)


def commands_of(page: Path) -> list[str]:
    """Lines that begin with llmctl in blocks of code, comments left out."""
    return [line.split("  #")[0].strip() for line in LINE.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "line"), [(page.name, line) for page in DOCS for line in commands_of(page)])
def test_every_command_has_its_verb_and_its_options(page, line):
    words = shlex.split(re.split(r" [|>&]", line)[0].replace("...", ""))[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words, f"{page}: {line}: which command?"
        command = command.commands[words.pop(0)]
    command.make_context(command.name, [*words])  # raises where an option is not there
    for word in words:
        if re.match(r"recipes/\S+\.toml$", word):
            assert (REPOSITORY / word).is_file(), f"{page}: no file {word}"


def test_every_link_leads_somewhere():
    for page in DOCS:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader types: a copy of the repository, whose code a page may change."""
    folder = tmp_path_factory.mktemp("docs") / "llmctl"
    told = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, told.split("\0")):
        if (REPOSITORY / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((REPOSITORY / name).read_bytes())
    return folder


@pytest.mark.parametrize("task", [task for task in TASKS if (REPOSITORY / "docs" / f"{task}.md").is_file()])
def test_what_a_task_page_says_to_type_can_be_typed(task, folder):
    environment = dict(os.environ, PYTHONPATH=f"{folder}{os.pathsep}{folder / 'kernels'}", COLUMNS="100")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    text = (folder / "docs" / f"{task}.md").read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        kind, file, body = block["kind"], block["file"], block["text"]
        if kind == "diff":
            subprocess.run(["patch", "--strip=1", "--forward", "--fuzz=0"], input=body, cwd=folder, text=True, check=True)
        elif file is not None:
            (folder / file).write_text(body, encoding="utf-8")
        elif kind == "console":
            for line in re.findall(r"^\$ (.*)$", body, re.MULTILINE):
                typed = subprocess.run(
                    ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
                )
                expected = re.search(r"exit code (\d)", line)
                assert typed.returncode == int(expected[1] if expected else 0), (
                    f"{task}: {line}\n{typed.stdout[-2000:]}\n{typed.stderr[-3000:]}"
                )
