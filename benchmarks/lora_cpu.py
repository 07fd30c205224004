"""LoRA on a CPU, beside trl's SFTTrainer with peft: tokens of real text per second, and peak memory.

    python -m venv peer && peer/bin/pip install torch==2.13.0 transformers==5.23.0 trl==1.16.0 peft datasets
    python benchmarks/lora_cpu.py --model smollm2 --conversations gsm8k.jsonl --peer-python peer/bin/python

Both train the same adapter (rank 16 on all linear layers of the blocks) in bf16 on the same conversations with the same masks,
as many conversations a step, each in a process of its own, one after the other. llmctl packs them into rows of 1,024 tokens; trl
pads each batch to its longest conversation (its packing needs flash-attn, which no CPU has): in random order, where its batches
are the same as here, and grouped by length, where they are not: the longest come first. Padding is no text. `--out` writes JSON.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import options, write_result

LENGTH, ROWS, WARMUP, RANK, ALPHA, RATE = 1024, 4, 2, 16, 32.0, 1e-4
TABLE = {"name": "lora", "kind": "lora", "from": "base", "seq_len": LENGTH, "batch_tokens": ROWS * LENGTH, "lr": RATE,
         "schedule": "constant", "mix": {"talk": 1.0}, "precision": "bf16", "rank": RANK, "alpha": ALPHA,
         "checkpoint": {"every_minutes": 1e6}}  # fmt: skip


def write_data(folder: Path, model: str, conversations: Path) -> None:
    """Token shards with masks, and the same conversations as rows for the peer."""
    from llmctl.corpus.attrition import Attrition
    from llmctl.corpus.documents import read_conversations
    from llmctl.corpus.snapshot import snapshot
    from llmctl.recipe.corpus_schema import CorpusTable
    from llmctl.tokens.chat_shards import ChatSettings, write_chat_shards
    from llmctl.tokens.rows import IGNORED
    from llmctl.tokens.shards import TokenShards
    from llmctl.tokens.tokenizer import load_tokenizer

    source = {"path": str(conversations), "kind": "chat", "on_error": "skip"}
    snapshot(CorpusTable.model_validate({"sources": {"talk": source}}), 1, folder / "corpus", Attrition())
    talks = read_conversations(folder / "corpus", "talk", "train")
    tokenizer = load_tokenizer(model)
    write_chat_shards(talks, tokenizer, folder / "talk", ChatSettings("assistant", LENGTH))
    tokenizer.save_pretrained(folder / "tokenizer")
    shards = TokenShards(folder / "talk")
    rows = []
    for first, last in zip(shards.offsets[:-1], shards.offsets[1:], strict=True):
        ids, mask = shards.stream[first:last].tolist(), shards.mask[first:last].tolist()
        labels = [token if trained else IGNORED for token, trained in zip(ids, mask, strict=True)]
        rows.append({"input_ids": ids, "labels": labels})
    together = round(ROWS * LENGTH / (shards.tokens / shards.documents))
    told = {"model": model, "conversations": together, "rank": RANK, "alpha": ALPHA, "lr": RATE}
    (folder / "settings.json").write_text(json.dumps(told))
    (folder / "rows.json").write_text(json.dumps(rows))


def ours(folder: Path, steps: int) -> dict[str, Any]:
    from llmctl import events
    from llmctl.train.data import TrainingRows
    from llmctl.train.job import DataPart, TrainJob
    from llmctl.train.run import run_job

    model = json.loads((folder / "settings.json").read_text())["model"]
    table = TABLE | {"tokens": steps * ROWS * LENGTH}
    part = DataPart("talk", str(folder / "talk"), 1.0, "best_fit")
    lora = {"rank": RANK, "alpha": ALPHA, "dropout": 0.0, "targets": "all_linear"}
    job = TrainJob(str(folder / "job"), "lora", steps, table, str(folder / "tokenizer"), [part], parent=model, lora=lora)
    job.path.mkdir()
    times, losses, peak = [], [], 0

    def note(event: events.Event) -> None:
        nonlocal peak
        if isinstance(event, events.Metrics) and "loss" in event.values:
            times.append(time.perf_counter())
            losses.append(event.values["loss"])
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    with events.listening(note):
        run_job(lambda: job)
    rows = TrainingRows(job)
    tokens = [sum(length for _, _, length in rows.sources[s].pieces(r)) for step in range(steps) for s, r in rows.of_step(step)]
    by_step = [sum(tokens[step * ROWS : (step + 1) * ROWS]) for step in range(steps)]
    return {"times": times, "tokens": by_step, "peak_bytes": peak, "loss": sum(losses) / len(losses)}


def rate(found: dict[str, Any]) -> float:
    """Tokens of text per second over the steps after the warm-up."""
    return sum(found["tokens"][WARMUP:]) / (found["times"][-1] - found["times"][WARMUP - 1])


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", required=True, help="Model folder.")
    parser.add_argument("--conversations", type=Path, required=True, help="JSON lines or Parquet.")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--alone", help="Run llmctl's part in the folder with the data.")
    chosen = parser.parse_args()
    if chosen.alone:
        folder = Path(chosen.alone)
        (folder / "llmctl.json").write_text(json.dumps(ours(folder, chosen.steps)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, chosen.model, chosen.conversations)
        again = ["--model", chosen.model, "--conversations", chosen.conversations, "--steps", str(chosen.steps)]
        subprocess.run([sys.executable, __file__, "--alone", folder, *again], check=True, stdout=subprocess.DEVNULL)
        runs = {"llmctl": json.loads((folder / "llmctl.json").read_text())}
        settings = json.loads((folder / "settings.json").read_text())
        ways = [(order, weights) for order in ("random", "group_by_length") for weights in ("float32", "bfloat16")]
        for order, weights in ways if chosen.peer_python else []:
            (folder / "settings.json").write_text(json.dumps(settings | {"order": order, "weights": weights}))
            script = Path(__file__).with_name("lora_trl.py")
            subprocess.run([chosen.peer_python, script, folder, str(chosen.steps)], check=True, stdout=subprocess.DEVNULL)
            runs[f"trl, {order}, {weights}"] = json.loads((folder / f"trl-{order}-{weights}.json").read_text())
    for who, found in runs.items():
        print(f"{who:34s} {rate(found):8,.0f} tokens/s  {found['peak_bytes'] / 2**30:.2f} GiB  loss {found['loss']:.3f}")
    write_result({"steps": chosen.steps, "runs": runs}, chosen.out)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
