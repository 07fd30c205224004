"""Files of a run as they are at this moment: what is cut, missing a part or of another version is noted, and the rest is read."""

import json
import math
from pathlib import Path
from typing import Any


class Reader:
    """Reads below the folder of a run and keeps a note of every file that is not whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []

    def note(self, path: Path, what: str) -> None:
        self.notes.append(f"{path.relative_to(self.folder)}: {what}")

    def mapping(self, path: Path) -> dict[str, Any]:
        """A JSON object; empty where there is none."""
        return self._value(path, dict) or {}

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """The objects of a JSON array; empty where there is none."""
        return [row for row in self._value(path, list) or [] if isinstance(row, dict)]

    def _value(self, path: Path, kind: type) -> Any:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.note(path, f"cannot be read ({error}); what it says is left out")
            return None
        if not isinstance(value, kind):
            self.note(path, f"a JSON {'object' if kind is dict else 'array'} was expected; what it says is left out")
            return None
        return value

    def lines(self, path: Path, being_written: bool = False) -> list[dict[str, Any]]:
        """The objects of a file with one a line. While it is written its last line may lack its end, which is no fault."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            self.note(path, f"cannot be read ({error}); what it says is left out")
            return []
        found, broken = [], 0
        for line in text.splitlines(keepends=True):
            value = _object(line)
            if value is not None:
                found.append(value)
            elif line.strip() and (line.endswith("\n") or not being_written):
                broken += 1
        if broken:
            cut = ", the last one, which is cut" if broken == 1 and not text.endswith("\n") else ""
            self.note(path, f"{broken:,} line{'s' if broken > 1 else ''} could not be read{cut}; {len(found):,} could")
        return found


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def numbers(values: Any) -> dict[str, float]:
    """The finite numbers of a mapping."""
    found = {name: number(value) for name, value in values.items()} if isinstance(values, dict) else {}
    return {name: value for name, value in found.items() if value is not None}


def inner(value: Any, *path: str) -> Any:
    """What stands at a path of keys in nested mappings; None where nothing does."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def inner_mapping(value: Any, *path: str) -> dict[str, Any]:
    """The mapping there; an empty one where there is none."""
    found = inner(value, *path)
    return found if isinstance(found, dict) else {}


def inner_rows(value: Any, *path: str) -> list[dict[str, Any]]:
    """The mappings of the list there; none where there is no list."""
    found = inner(value, *path)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
