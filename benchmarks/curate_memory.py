"""Peak memory of `llmctl curate` on a corpus repeated and perturbed to 1 GB, and to 4 GB.

    python benchmarks/curate_memory.py --gigabytes 1 4

The documents are the Python source of the installed packages (`--text` names others), over and over, a tenth of the lines of each
copy replaced; filters and near copies are on. Prints seconds, peak memory of the process and what is left; `--out` writes JSON.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import documents, options, write_result

RECIPE = """
name = "memory"
[corpus]
filter = "code"
[corpus.dedup]
[corpus.sources.own]
path = "{path}"
"""


def write_corpus(file: Path, texts: list[str], size: int) -> int:
    """Write rows of `size` bytes of text; returns how many."""
    import zstandard

    chance, written, number = random.Random(1), 0, 0
    with file.open("wb") as raw, zstandard.ZstdCompressor(1, threads=2).stream_writer(raw) as packed:
        while written < size:
            lines = texts[number % len(texts)].split("\n")
            for _ in range(len(lines) // 10):
                place = chance.randrange(len(lines))
                lines[place] = f"    value_{chance.randrange(10**9)} = {chance.randrange(10**9)}"
            text = "\n".join(lines)
            packed.write((json.dumps({"id": f"d{number}", "text": text}) + "\n").encode())
            written += len(text.encode())
            number += 1
    return number


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[1.0])
    chosen = parser.parse_args()
    texts = documents(chosen.text)
    result: dict[str, Any] = {"runs": []}
    for gigabytes in chosen.gigabytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            count = write_corpus(folder / "own.jsonl.zst", texts, int(gigabytes * 1e9))
            (folder / "memory.toml").write_text(RECIPE.format(path=folder / "own.jsonl.zst"))
            command = [str(Path(sys.executable).with_name("llmctl")), "curate", str(folder / "memory.toml"), "--runs", name]
            started = time.time()
            made = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            told = made.stdout.read() if made.stdout else ""
            _, status, usage = os.wait4(made.pid, 0)
            if status:
                sys.exit(f"llmctl curate failed: {told[-2000:]}")
            run = {"gigabytes": gigabytes, "documents": count, "seconds": time.time() - started}
            run["peak_gib"] = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
            (stats,) = Path(name).glob("memory/corpus-*/stats.json")
            run["left"] = json.loads(stats.read_text())["own"]
            result["runs"].append(run)
            print(f"{gigabytes:g} GB, {count:,} documents: {run['seconds']:.0f} s, {run['peak_gib']:.2f} GiB, {run['left']}")
    write_result(result, chosen.out)


if __name__ == "__main__":
    sys.exit(main())
