"""Run by the peers' Python for `train_cpu.py`: the same shape and tokens under Hugging Face `Trainer` and litgpt's model."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

WIDTH, LAYERS, HEADS, INNER, VOCABULARY, LENGTH, ROWS = 256, 6, 4, 1024, 8192, 512, 8
WARMUP = 5  # steps that are not counted


def rows_of(folder: Path) -> torch.Tensor:
    ids = np.fromfile(folder / "ids.npy", np.uint16).astype(np.int64)
    return torch.from_numpy(ids[: len(ids) // LENGTH * LENGTH].reshape(-1, LENGTH))


def rate(times: list[float], tokens: list[int]) -> float:
    """Tokens per second over the steps after the warm-up; `times` are those at which steps ended."""
    return sum(tokens[WARMUP:]) / (times[-1] - times[WARMUP - 1])


def llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def with_trainer(dataset: Any, steps: int, collate: Any) -> list[float]:
    """Times at which the steps ended."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    arguments = TrainingArguments(
        "/tmp/trainer",
        per_device_train_batch_size=ROWS,
        max_steps=steps,
        bf16=True,
        use_cpu=True,
        learning_rate=1e-3,
        optim="adamw_torch_fused",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    Trainer(llama(), arguments, train_dataset=dataset, data_collator=collate, callbacks=[Clock()]).train()
    return times


def trainer(folder: Path, steps: int) -> dict[str, float]:
    rows = rows_of(folder)
    dataset = [{"input_ids": row.tolist(), "labels": row.tolist()} for row in rows[: steps * ROWS]]

    def collate(examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        return {key: torch.tensor([example[key] for example in examples]) for key in ("input_ids", "labels")}

    times = with_trainer(dataset, steps, collate)
    return {"tokens_per_second": rate(times, [ROWS * LENGTH] * steps)}


def padded(folder: Path, steps: int) -> dict[str, float]:
    """Documents as rows of their own, padded to the longest of a batch, as SFT without packing has them."""
    ids, lengths = np.fromfile(folder / "talk.npy", np.uint16).astype(np.int64), json.loads((folder / "talk.json").read_text())
    ends = np.cumsum(lengths)
    documents = [ids[end - length : end].tolist() for end, length in zip(ends, lengths, strict=True)]
    dataset = [{"input_ids": document} for document in documents[: steps * ROWS]]
    real: list[int] = []

    def collate(examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        found = [example["input_ids"] for example in examples]
        longest = max(map(len, found))
        real.append(sum(map(len, found)))
        batch = torch.zeros(len(found), longest, dtype=torch.long)
        mask = torch.zeros_like(batch)
        for row, document in enumerate(found):
            batch[row, : len(document)], mask[row, : len(document)] = torch.tensor(document), 1
        return {"input_ids": batch, "attention_mask": mask, "labels": batch.masked_fill(mask == 0, -100)}

    times = with_trainer(dataset, steps, collate)
    return {"tokens_per_second": rate(times, real[:steps])}


def litgpt(folder: Path, steps: int) -> dict[str, float]:
    from lightning.fabric import Fabric
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        block_size=LENGTH, padded_vocab_size=VOCABULARY, vocab_size=VOCABULARY, n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH,
        intermediate_size=INNER, rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )  # fmt: skip
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = GPT(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model, optimizer = fabric.setup(model, optimizer)
    rows, times = rows_of(folder), []
    for step in range(steps):
        batch = rows[step * ROWS : (step + 1) * ROWS]
        logits = model(batch)
        loss = chunked_cross_entropy(logits[:, :-1], batch[:, 1:], chunk_size=0)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    return {"tokens_per_second": rate(times, [ROWS * LENGTH] * steps)}


if __name__ == "__main__":
    what, place, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    found = {"trainer": trainer, "padded": padded, "litgpt": litgpt}[what](place, count)
    (place / f"{what}.json").write_text(json.dumps(found))
