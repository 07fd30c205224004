"""What tests of the command line share."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

SMALL_RECIPE = """
name = "small"
[corpus]
heldout_fraction = 0.2
[corpus.sources.code]
path = "{texts}"
[tokenizer]
vocab_size = 512
train_bytes = 300000
[model]
hidden_size = 32
layers = 4
heads = 2
ffn_size = 64
window = 32
[pretrain]
tokens = 5120
seq_len = 64
batch_tokens = 256
micro_batch = 2
optimizer = "muon"
warmup_steps = 2
mix = {{ code = 1.0 }}
checkpoint = {{ every_steps = 3 }}
[eval]
questions = 8
bits_per_byte_bytes = 20000
generations = 4
long_documents = 2
"""


def command(*arguments: Any) -> list[str]:
    """The installed console script of this environment."""
    return [str(Path(sys.executable).with_name("llmctl")), *map(str, arguments)]


def run_llmctl(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line through its real entry point."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=600, **options)


def in_process(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """As `run_llmctl`, without the seconds in which a new process imports torch: for commands that train nothing."""
    import transformers  # noqa: F401 (its log would go where the command's output does, which is closed afterwards)
    from typer.testing import CliRunner

    from llmctl.cli import app
    from llmctl.interrupts import WATCHED

    before, hook = {number: signal.getsignal(number) for number in WATCHED}, sys.unraisablehook
    try:
        result = CliRunner().invoke(app, [*map(str, arguments)], **options)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess([*map(str, arguments)], result.exit_code, result.stdout, result.stderr)


def curated(
    out: Path, heldout_fraction: float = 0.2, mask: list[str] | None = None, **sources: Any
) -> tuple[dict[str, Any], dict[tuple[str, str], int]]:
    """The corpus of these sources (their tables) below `out`: counts of each source, and documents left out by source and
    rule."""
    from llmctl.corpus.attrition import Attrition
    from llmctl.corpus.snapshot import snapshot
    from llmctl.recipe.corpus_schema import CorpusTable

    out.mkdir(exist_ok=True)
    attrition = Attrition()
    table = CorpusTable.model_validate({"heldout_fraction": heldout_fraction, "mask": mask or [], "sources": sources})
    counts = snapshot(table, 1, out, attrition)
    return dict(counts), {(row["source"], row["rule"]): row["documents"] for row in attrition.rows()}


def make_shards(
    folder: Path, documents: Sequence[Sequence[int]], masks: Sequence[Sequence[int]] | None = None, parts: int = 1
) -> Any:
    """Shards of these ids, the documents dealt out to parts in order."""
    import numpy as np

    from llmctl.tokens.shards import PartWriter, TokenShards, write_meta

    folder.mkdir(exist_ok=True)
    kind, written, size = np.dtype(np.uint16), [], -(-len(documents) // parts)
    for part in range(parts):
        writer = PartWriter(folder, part, kind, masked=masks is not None)
        for place in range(part * size, min(len(documents), (part + 1) * size)):
            mask = None if masks is None else np.array(masks[place], dtype=np.uint8)
            writer.add(np.array(documents[place]), f"d{place}", "own.txt", 1, mask)
        written.append(writer.close())
    write_meta(folder, kind, written, [len(d) for d in documents])
    return TokenShards(folder)


def stage(runs: Path, name: str) -> Path:
    """The finished artifact of a stage of the tiny run."""
    (found,) = [path for path in (runs / "tiny").glob(f"{name}-*") if (path / "manifest.json").exists()]
    return found
