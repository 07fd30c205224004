"""Training speed on a CPU, beside Hugging Face `Trainer`, litgpt's model and the machine's own rate of matrix products.

    python -m venv peer && peer/bin/pip install torch==2.13.0 transformers accelerate litgpt==0.5.13
    python benchmarks/train_cpu.py --peer-python peer/bin/python --steps 30

A model of 10.5M weights (width 256, 6 layers, 4 heads, MLP 1,024, 8,192 tokens), 8 rows of 512 tokens a step, bf16 with fp32
weights and AdamW, on the Python source of the installed packages; every system in a process of its own, one after the other.
llmctl runs a whole job, from token shards through DeepSpeed. Prints tokens per second and ratios, model FLOPs as a share of
the rate of a product of 4,096-cubed matrices, the parts of a step, and how long a checkpoint holds training up; `--out`
writes JSON.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from common import documents, options, write_result
from train_peers import HEADS, INNER, LAYERS, LENGTH, ROWS, VOCABULARY, WARMUP, WIDTH, rate

TABLE = {"name": "pretrain", "kind": "pretrain", "seq_len": LENGTH, "batch_tokens": ROWS * LENGTH, "lr": 1e-3, "z_loss": 0.0,
         "micro_batch": ROWS, "mix": {"text": 1.0}, "precision": "bf16", "checkpoint": {"every_minutes": 1e6}}  # fmt: skip
FLOPS_PER_TOKEN = 6 * (LAYERS * (4 * WIDTH**2 + 3 * WIDTH * INNER) + VOCABULARY * WIDTH) + 6 * LAYERS * WIDTH * LENGTH
"""Forward and backward: six per weight of a product, the embedding left out, and the causal half of attention's products."""


Packing = Literal["concat", "best_fit"]


def job_of(folder: Path, steps: int, packing: Packing) -> Any:
    from llmctl.train.job import DataPart, TrainJob

    name = "text" if packing == "concat" else "talk"
    shape = {"hidden_size": WIDTH, "layers": LAYERS, "heads": HEADS, "kv_heads": HEADS, "head_size": WIDTH // HEADS,
             "ffn_size": INNER, "window": LENGTH, "vocab_size": VOCABULARY, "max_length": LENGTH}  # fmt: skip
    table = TABLE | {"tokens": steps * ROWS * LENGTH, "packing": packing, "document_boundaries": packing == "best_fit"}
    part = DataPart(name, str(folder / name), 1.0, packing)
    tokenizer = str(folder / "tokenizer")
    return TrainJob(str(folder / f"job-{name}"), "pretrain", steps, table, tokenizer, [part], shape=shape)


def ours(folder: Path, steps: int, packing: Packing) -> dict[str, float]:
    from llmctl import events
    from llmctl.train.data import TrainingRows
    from llmctl.train.run import run_job

    job = job_of(folder, steps, packing)
    job.path.mkdir()
    times: list[float] = []

    def note(event: events.Event) -> None:
        if isinstance(event, events.Metrics):
            times.append(time.perf_counter())

    with events.listening(note):
        run_job(lambda: job)
    if packing == "concat":
        return {"tokens_per_second": rate(times, [ROWS * LENGTH] * steps)}
    rows = TrainingRows(job)
    real = [sum(filled(rows.sources[source], row) for source, row in rows.of_step(step)) for step in range(steps)]
    return {"tokens_per_second": rate(times, real)}


def filled(rows: Any, row: int) -> int:
    """Tokens of a packed row that are no padding."""
    return sum(length for _, _, length in rows.pieces(row))


def parts(folder: Path, steps: int) -> dict[str, float]:
    """Seconds of a step by part, and of a checkpoint."""
    from llmctl.train import checkpoint
    from llmctl.train.checkpoint import Position
    from llmctl.train.distributed import join_process_group
    from llmctl.train.run import assemble_model, set_up

    job = job_of(folder, steps, "concat")
    join_process_group()
    engine, rows, micro_batch = set_up(job, assemble_model(job))
    spent = {"data": 0.0, "forward and backward": 0.0, "optimizer": 0.0}
    for step in range(steps):
        if step == WARMUP:
            spent = dict.fromkeys(spent, 0.0)
        marks = [time.perf_counter()]
        batches = list(rows.micro_batches(step, micro_batch, 0, 1))
        marks.append(time.perf_counter())
        for number, batch in enumerate(batches, start=1):
            engine.accumulate(batch, rows.supervised(step), last=number == len(batches))
        marks.append(time.perf_counter())
        engine.step(1.0)
        marks.append(time.perf_counter())
        for name, start, end in zip(spent, marks, marks[1:], strict=False):
            spent[name] += end - start
    spent = {name: seconds / (steps - WARMUP) for name, seconds in spent.items()}
    started = time.perf_counter()
    checkpoint.save(engine, folder / "checkpoint", Position(steps, 0, steps))
    return spent | {"checkpoint": time.perf_counter() - started}


def product_rate() -> dict[str, float]:
    """FLOP/s of a bf16 product of 4,096-cubed matrices, the best of five."""
    import torch

    left, right = (torch.randn(4096, 4096, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return {"flops_per_second": 2 * 4096**3 / min(seconds)}


def write_data(folder: Path, megabytes: float, steps: int) -> None:
    """Token shards of text and of conversations, and the same ids flat for the peers."""
    import numpy as np

    from llmctl.corpus.builtin import standard_library
    from llmctl.corpus.chat import docstring_conversations
    from llmctl.tokens.shards import TokenShards
    from llmctl.tokens.text_shards import TextShards
    from llmctl.tokens.tokenizer import train_tokenizer

    texts = documents(None, megabytes)
    train_tokenizer(iter(texts[:400]), VOCABULARY, folder / "tokenizer")
    talk = [conversation.text for conversation in docstring_conversations(standard_library(None), "talk", 1)][: ROWS * steps * 4]
    for name, found in {"text": texts, "talk": talk}.items():
        size = sum(len(text.encode()) for text in found)
        shards = TextShards(str(folder / "tokenizer"), folder / name)
        shards.write(lambda found=found: [(str(n), text, "") for n, text in enumerate(found)], size)
    for name, file in {"text": "ids.npy", "talk": "talk.npy"}.items():
        written = TokenShards(folder / name)
        np.asarray(written.stream[0 : written.tokens], np.uint16).tofile(folder / file)
    (folder / "talk.json").write_text(json.dumps(TokenShards(folder / "talk").lengths.tolist()))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--alone", nargs=2, help="Run one part in the folder with the data.")
    chosen = parser.parse_args()
    if chosen.alone:
        what, folder = chosen.alone[0], Path(chosen.alone[1])
        works = {"llmctl": lambda: ours(folder, chosen.steps, "concat"), "packed": lambda: ours(folder, chosen.steps, "best_fit"),
                 "parts": lambda: parts(folder, chosen.steps), "product": product_rate}  # fmt: skip
        (folder / f"{what}.json").write_text(json.dumps(works[what]()))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, 8 + chosen.steps * ROWS * LENGTH * 4 / 1e6, chosen.steps)
        result: dict[str, Any] = {"steps": chosen.steps}
        for what in ("product", "llmctl", "packed", "parts"):
            command = [sys.executable, __file__, "--alone", what, folder, "--steps", str(chosen.steps)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            result[what] = json.loads((folder / f"{what}.json").read_text())
        for what in ("trainer", "litgpt", "padded") if chosen.peer_python else ():
            script = Path(__file__).with_name("train_peers.py")
            subprocess.run([chosen.peer_python, script, what, folder, str(chosen.steps)], check=True, stdout=subprocess.DEVNULL)
            result[what] = json.loads((folder / f"{what}.json").read_text())
    show(result)
    write_result(result, chosen.out)


def show(result: dict[str, Any]) -> None:
    speed, product = result["llmctl"]["tokens_per_second"], result["product"]["flops_per_second"]
    result["share_of_product_rate"] = speed * FLOPS_PER_TOKEN / product
    print(f"llmctl   {speed:8,.0f} tokens/s, {result['share_of_product_rate']:.1%} of {product / 1e9:,.0f} GFLOP/s")
    for what in ("trainer", "litgpt"):
        if what in result:
            theirs = result[what]["tokens_per_second"]
            result[what]["ratio"] = speed / theirs
            print(f"{what:9s}{theirs:8,.0f} tokens/s; llmctl makes {speed / theirs:.2f} times as many")
    if "padded" in result:
        mine, theirs = (result[what]["tokens_per_second"] for what in ("packed", "padded"))
        result["padded"]["ratio"] = mine / theirs
        print(
            f"conversations, without padding: packed {mine:,.0f} tokens/s, {mine / theirs:.2f} times padded batches under Trainer"
        )
    step = ROWS * LENGTH / speed
    for name, seconds in result["parts"].items():
        print(f"{name:22s}{seconds * 1000:8.1f} ms   {seconds / step:.2%} of a step")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
