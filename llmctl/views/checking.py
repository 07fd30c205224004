"""`llmctl check`: a line for everything that was looked at, and what to do next."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from llmctl.stages.checked import Finding


def show_findings(findings: Sequence[Finding], recipe: Path, options: list[str], as_json: bool) -> bool:
    """Print what `llmctl check` found; whether nothing of it is an error. `options`: of the run, as they were typed."""
    count = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warning", "error")}
    command = shlex.join(["llmctl", "run", str(recipe), *options])
    good = not count["error"]
    if as_json:
        found = {"findings": [asdict(finding) for finding in findings], "count": count}
        print(json.dumps(found | {"smoke": command if "--smoke" in options else f"{command} --smoke", "run": command}, indent=2))
        return good
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        first, *rest = finding.text.splitlines()
        print("\n".join([f"{finding.level:<7}  {finding.what:<{width}}  {first}", *rest]))
    print()
    if not good:
        print(f"{plural(count['error'], 'error')}, {plural(count['warning'], 'warning')}: mend the errors, and check again")
        return False
    print(f"no errors, {plural(count['warning'], 'warning')}")
    if "--smoke" not in options:
        print(f"try it in two minutes, every stage shrunk, before the real run:  {command} --smoke")
        print(f"then the real run:  {command}")
    else:
        print(f"run it:  {command}")
    return True


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
