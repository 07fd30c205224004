"""What `llmctl reproduce` wrote, and what stands in the way."""

import json

from llmctl.stages.reproducing import SCRIPT, Reproduction


def show_reproduction(found: Reproduction, as_json: bool) -> None:
    if as_json:
        print(json.dumps(as_values(found), indent=2))
        return
    artifact = found.artifact
    print(f"{artifact.run}/{artifact.name}: {found.folder}/{{{','.join(found.files)}}}")
    for checked in found.inputs:
        what = {"same": "the same", "unknown": f"cannot be compared: {checked.what}"}.get(checked.standing, checked.what)
        print(f"  {checked.input.name} ({checked.input.place}): {what}")
    for name in found.other_keys:
        print(f"  {name}: gets another key here than it has in the run, for what has changed above or in llmctl itself")
    for line in found.environment:
        print(f"  may change bits: {line}")
    if found.same:
        print(f"all inputs are the same. Make it again, and compare: bash {found.folder / SCRIPT}")
    else:
        again = "the commands" if artifact.by_command else "the recipe"
        print(f"not all is as it was: {again} will make something else than {artifact.name}")


def as_values(found: Reproduction) -> dict[str, object]:
    return {
        "same": found.same,
        "folder": str(found.folder),
        "files": found.files,
        "output_hash": found.artifact.output_hash,
        "inputs": [
            {
                "name": one.input.name,
                "place": one.input.place,
                "sha256": one.input.sha256,
                "standing": one.standing,
                "what": one.what,
            }
            for one in found.inputs
        ],
        "other_keys": found.other_keys,
        "environment": found.environment,
    }
