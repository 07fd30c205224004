"""Every command's help and its examples; mistakes that the parser finds; narrow terminals, pipes and old encodings."""

import os
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from helpers import in_process, run_llmctl

from llmctl.cli import app


def commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command by the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*names, name))
        else:
            yield " ".join((*names, name)), command


PROGRAM = typer.main.get_command(app)
COMMANDS = dict(commands(PROGRAM))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_can_be_typed(name):
    examples = re.findall(r"Example: llmctl (.+?)$", COMMANDS[name].help, re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example.split(" | ")[0])
        for _ in name.split():
            words.pop(0)
        assert example.startswith(name)
        COMMANDS[name].make_context(name, words)  # raises where an option is not there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrian"], "error: no command 'pretrian'; did you mean 'pretrain'?; see `llmctl --help`"),
        (["inspect", "bach"], "error: no command 'bach'; did you mean 'batch'?; see `llmctl inspect --help`"),
        (
            ["tokenizer", "xyzzy"],
            "error: no command 'xyzzy'; known are export, show, stats, train; see `llmctl tokenizer --help`",
        ),
        (["run", "own.toml", "--smok"], "error: no such option: --smok (Possible options: --smoke); see `llmctl run --help`"),
        (["run"], "error: missing argument 'recipe'; see `llmctl run --help`"),
    ],
)
def test_a_mistyped_line_is_answered_in_one_line(arguments, message):
    result = run_llmctl(*arguments)
    assert result.returncode == 2
    assert result.stderr == message + "\n"
    assert result.stdout == ""


def test_a_group_without_a_command_shows_its_help_once():
    result = run_llmctl("inspect")
    assert result.returncode == 2
    assert (result.stdout + result.stderr).count("Usage: llmctl inspect") == 1


def test_the_commands_are_in_panels():
    written = run_llmctl("--help").stdout
    for panel in ("Make", "Measure and try", "Look at runs", "Models of models", "Recipes, plans and this machine"):
        assert f"─ {panel} ─" in written


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_narrow_terminal_without_colour(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("NO_COLOR", "1")
    result = in_process(*name.split(), "--help")
    assert result.returncode == 0
    assert "\x1b[3" not in result.stdout
    assert "Usage:" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["runs"],
        ["lineage"],
        ["explain", "pretrain.lr"],
        ["inspect", "corpus", "--limit", "2"],
        ["eval", "--list"],
        ["explain", "nicht±→da"],
    ],
)
@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_an_old_encoding_costs_characters_and_no_output(arguments, environment, pretrained_runs):
    result = run_llmctl(
        *arguments,
        env=os.environ | {"LLMCTL_RUNS": str(pretrained_runs), "COLUMNS": "20"} | environment,
        encoding="cp1252",
        errors="replace",
    )
    assert "Traceback" not in result.stderr, result.stderr
    assert result.returncode == (2 if "nicht±→da" in arguments else 0)
    assert result.stdout or result.stderr
