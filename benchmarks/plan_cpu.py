"""What stages were told to take before they began, against what they took: `llmctl run` on a recipe, on this machine.

    python benchmarks/plan_cpu.py --out benchmarks/results/plan_cpu.json          # some ten minutes
    python benchmarks/plan_cpu.py --runs runs --run olmo_small                    # of a run that is there

Prints tokens/s, seconds of training and memory of each stage that trained, predicted and measured, and their ratio; `--out`
writes JSON. Other work on the machine makes times worthless: the load of the last minute is written, too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import write_result

MEASURES = ("tokens_per_second", "seconds", "memory_bytes")


def compared(run: Path) -> dict[str, dict[str, Any]]:
    """By stage and measure: predicted, measured, and the first over the second."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(run.glob("*/manifest.json"), key=lambda file: file.stat().st_mtime):
        metrics = json.loads(file.read_text())["metrics"]
        stage = file.parent.name.rpartition("-")[0]
        for measure in MEASURES:
            told, was = metrics.get(f"predicted/{measure}"), metrics.get(f"measured/{measure}")
            if told is not None and was is not None:
                found.setdefault(stage, {})[measure] = {"predicted": told, "measured": was, "ratio": told / was}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/olmo_small.toml"))
    parser.add_argument("--runs", type=Path, help="Folder of runs; with --run, of one that is done.")
    parser.add_argument("--run", help="Name of a run that is done.")
    parser.add_argument("--out", type=Path, help="Where the result is written as JSON.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = chosen.runs or Path(folder)
        if chosen.run is None:
            subprocess.run([sys.executable, "-m", "llmctl.cli", "run", chosen.recipe, "--runs", runs], check=True)
        stages = compared(runs / (chosen.run or chosen.recipe.stem))
    for stage, measures in stages.items():
        for measure, values in measures.items():
            print(f"{stage:10} {measure:18} predicted {values['predicted']:16,.1f}   measured {values['measured']:16,.1f}"
                  f"   ratio {values['ratio']:.2f}")  # fmt: skip
    load = os.getloadavg()[0]
    print(f"load of the last minute: {load:.1f} on {os.cpu_count()} cores")
    write_result({"recipe": chosen.recipe.name, "load": load, "stages": stages}, chosen.out)


if __name__ == "__main__":
    main()
