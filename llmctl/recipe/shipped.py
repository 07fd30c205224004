"""The recipes that ship with llmctl: where they lie, and what their first lines say of them."""

import difflib
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import UserError

SCHEMA = "recipe.schema.json"


@dataclass(frozen=True, slots=True)
class About:
    """What the comment at the head of a recipe says."""

    makes: str
    """Its first sentence."""
    cost: str
    """The sentence after `Cost:`."""


def shipped_folder() -> Path | None:
    """The folder of the recipes: the repository's where llmctl runs from one, else that of the installed package."""
    places = [Path(__file__).resolve().parents[2] / "recipes"]
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    places += [Path(sysconfig.get_path("data", scheme)) / "share" / "llmctl" / "recipes" for scheme in schemes]
    return next((place for place in places if (place / SCHEMA).is_file()), None)


def shipped_recipes() -> list[Path]:
    """Their files, by name."""
    folder = shipped_folder()
    return [] if folder is None else sorted(folder.glob("*.toml"))


def recipe_file(named: Path) -> Path:
    """The file that a recipe on the command line means: a file, or the bare name of a recipe that ships.

    Raises:
        UserError: a bare name that is neither.
    """
    if named.suffix or len(named.parts) != 1 or named.is_file():
        return named
    known = {file.stem: file for file in shipped_recipes()}
    if named.name in known:
        return known[named.name]
    near = difflib.get_close_matches(named.name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"those that ship are {', '.join(known) or 'none'}"
    here = f"{named}.toml"
    hint = f"did you mean {here!r}?" if Path(here).is_file() else hint
    raise UserError(f"{str(named)!r}: no such file here, and no recipe of that name ships; {hint}")


def about(file: Path) -> About:
    """What the head of a recipe says of it; empty where it does not."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("#:"):  # for editors
            lines.append(line.removeprefix("#").strip())
    text = " ".join(lines)
    cost = re.search(r"Cost: (.*?\.)(?= |$)", text)
    makes = re.match(r"(.*?\.)(?= |$)", text)
    return About(makes[1] if makes else "", cost[1] if cost else "")
