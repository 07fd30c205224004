"""What the README tells the reader to type can be typed."""

import re
import shlex
from functools import cache

import pytest
from helpers import REPOSITORY, run_llmctl

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TYPED = sorted(
    {
        match[1].split("   ")[0].split("#")[0].strip().strip("`")
        for match in re.finditer(r"(?:^ {4}|`|&& |-m |srun )(llmctl [a-z][^`\n]*)", README, re.MULTILINE)
    }
)


@cache
def help_of(*verb: str) -> str:
    result = run_llmctl(*verb, "--help")
    assert result.returncode == 0, f"llmctl {' '.join(verb)}: no such command"
    return result.stdout


def test_the_two_commands_stand_as_they_are_promised():
    assert "pip install -e . -c constraints.txt && llmctl run recipes/olmo_small.toml" in README
    assert 'pip install -e ".[test]" -c constraints.txt && pytest' in README


@pytest.mark.parametrize("line", TYPED)
def test_every_command_and_option_is_there(line):
    words = shlex.split(line)
    text = help_of(*words[1 : 3 if words[1] in ("inspect", "tokenizer") else 2])
    for word in words[2:]:
        if word.startswith("--"):
            assert word in text, f"{line}: no option {word}"
        if word.endswith(".toml"):
            assert (REPOSITORY / word).is_file(), f"{line}: no file {word}"


def test_every_file_that_is_named_is_there():
    named = set(re.findall(r"tests/[\w/]+\.py|(?<=\()[\w/]+\.md(?=\))|recipes/\w+\.toml", README))
    named |= {f"recipes/{name}" for name in re.findall(r"`(\w+\.toml)`", README)}
    assert len(named) > 10
    for path in named:
        assert (REPOSITORY / path).is_file(), path


def test_the_recipe_that_is_shown_is_the_recipe():
    shown = README.split("```toml")[1].split("```")[0]
    recipe = (REPOSITORY / "recipes" / "olmo_small.toml").read_text()
    for line in shown.splitlines():
        key = line.split("  #")[0].strip()
        assert key in recipe, key
