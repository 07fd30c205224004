"""Run by the peer's Python for `lora_cpu.py`: the same conversations under trl's SFTTrainer with peft."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def main(folder: Path, steps: int) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    rows = json.loads((folder / "rows.json").read_text())
    arguments = SFTConfig(
        str(folder / "trl"),
        per_device_train_batch_size=settings["conversations"],
        max_steps=steps,
        learning_rate=settings["lr"],
        lr_scheduler_type="constant",
        bf16=True,
        use_cpu=True,
        max_length=None,
        packing=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        train_sampling_strategy=settings["order"],
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    clock = Clock()
    kind = getattr(torch, settings["weights"])
    adapter = LoraConfig(r=settings["rank"], lora_alpha=settings["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(settings["model"], dtype=kind),
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        peft_config=adapter,
        callbacks=[clock],
    )
    seen: list[int] = []
    collate = trainer.data_collator

    def counting(examples: list[dict[str, Any]]) -> dict[str, Any]:
        seen.append(sum(len(example["input_ids"]) for example in examples))
        return collate(examples)

    trainer.data_collator = counting
    losses = trainer.train().training_loss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"times": clock.times, "tokens": seen[:steps], "peak_bytes": peak, "loss": losses}
    (folder / f"trl-{settings['order']}-{settings['weights']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
