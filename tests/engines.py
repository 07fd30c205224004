"""What tests of the training engines share: a model small enough for a step to take milliseconds, its rows, its engines.

Functions that two ranks run (`two_ranks.run`) are found by name, and therefore stand in modules.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from llmctl.model.build import ModelShape, build_model
from llmctl.model.embeddings import resize_embeddings
from llmctl.model.lora import AdapterSettings, add_adapter
from llmctl.model.lora_linear import quicken
from llmctl.recipe.schema import PretrainTable
from llmctl.tokens.batch import collate
from llmctl.tokens.rows import IGNORED, Row
from llmctl.train.deepspeed_engine import DeepSpeedEngine
from llmctl.train.engine import TorchEngine, settings_for_deepspeed
from llmctl.train.objective import CausalObjective
from llmctl.train.optimizer import build_optimizer
from llmctl.train.prepare import compiles, prepare_for_training
from llmctl.train.sequence import sequence_group

State = dict[str, dict[str, torch.Tensor]]

ROWS, LENGTH, STEPS = 8, 16, 3
SHAPE = ModelShape(
    vocab_size=64, hidden_size=16, layers=2, heads=2, kv_heads=2, head_size=8, ffn_size=32, window=8, max_length=32
)


def table(**keys: Any) -> PretrainTable:
    return PretrainTable.model_validate(
        {"name": "pretrain", "kind": "pretrain", "tokens": 1000, "seq_len": LENGTH, "batch_tokens": ROWS * LENGTH, "lr": 1e-2,
         "weight_decay": 0.1, "max_grad_norm": 0.5, "precision": "fp32", "mix": {"a": 1.0}} | keys
    )  # fmt: skip


def rows_of_step(step: int) -> list[Row]:
    """Rows with unequal numbers of supervised tokens: a mean over ranks of means over tokens would show."""
    random = np.random.default_rng(step)
    rows = []
    for index in range(ROWS):
        ids = random.integers(0, 64, LENGTH + 1)
        labels = ids[1:].copy()
        labels[: random.integers(0, LENGTH - 1)] = IGNORED
        cut = int(random.integers(1, LENGTH)) if index % 2 else LENGTH
        rows.append(Row(ids[:-1], labels, [cut, LENGTH - cut] if cut < LENGTH else [LENGTH]))
    return rows


def supervised(rows: list[Row]) -> int:
    return sum(int((row.labels != IGNORED).sum()) for row in rows)


def frozen_below() -> torch.nn.Module:
    model = build_model(SHAPE, seed=3)
    for part in (model.model.embed_tokens, model.model.layers[0]):
        part.requires_grad_(False)
    return model


PLAIN = AdapterSettings(rank=4, alpha=8.0)
ADAPTERS = {
    "lora": PLAIN,
    "lora with dropout": replace(PLAIN, dropout=0.5),
    "dora": replace(PLAIN, dora=True),
    "rslora": replace(PLAIN, rslora=True),
    "pissa": replace(PLAIN, init="pissa"),
    "lora and embeddings": replace(PLAIN, added_tokens=2),
    "lora and tied embeddings": replace(PLAIN, added_tokens=2),
}


def adapted(name: str) -> torch.nn.Module:
    """As a job assembles it: with added tokens, the embedding has been given their rows."""
    settings, shape = ADAPTERS[name], replace(SHAPE, tie_embeddings="tied" in name)
    model = build_model(shape, seed=3)
    if settings.added_tokens:
        resize_embeddings(model, shape.vocab_size + settings.added_tokens)
    return add_adapter(model, settings, seed=1)


MODELS = {
    "plain": lambda: build_model(SHAPE, seed=3),
    "grouped": lambda: build_model(replace(SHAPE, heads=4, head_size=4), seed=3),
    "tied": lambda: build_model(replace(SHAPE, tie_embeddings=True), seed=3),
    "frozen": frozen_below,
} | {name: partial(adapted, name) for name in ADAPTERS}


def objective(options: PretrainTable, model: str = "plain", quick: bool = False) -> CausalObjective:
    """`quick`: with an adapter's layers as a job has them, and not as `peft` makes them."""
    built, bfloat16 = MODELS[model](), options.precision != "fp32"
    if quick and model in ADAPTERS:
        quicken(built, ADAPTERS[model], options.zero_stage, bfloat16, compiles(options))
    prepared = prepare_for_training(built, options)
    sequence = sequence_group(options, prepared) if options.sequence_parallel > 1 else None
    return CausalObjective(prepared, 1e-4, bfloat16 and options.zero_stage == 0, "cpu", sequence)


def torch_engine(options: PretrainTable, model: str = "plain") -> TorchEngine:
    built = objective(options, model)
    return TorchEngine(built, build_optimizer(built, options), options.max_grad_norm, options.ema_decay)


def deepspeed_engine(
    options: PretrainTable, micro_batch: int, model: str = "plain", further: dict[str, Any] | None = None
) -> DeepSpeedEngine:
    built = objective(options, model, quick=True)
    accumulation = ROWS * options.sequence_parallel // (micro_batch * torch.distributed.get_world_size())
    bfloat16, offload = options.precision != "fp32", options.offload_optimizer
    settings = settings_for_deepspeed(
        options.zero_stage, bfloat16, micro_batch, accumulation, options.max_grad_norm, offload, further
    )
    return DeepSpeedEngine(built, build_optimizer(built, options), settings, options.max_grad_norm, options.ema_decay)


def steps(
    engine: Any,
    micro_batch: int,
    first: int = 0,
    last: int = STEPS,
    left_out: int | None = None,
    rows_of: Callable[[int], list[Row]] = rows_of_step,
) -> np.ndarray:
    """Loss (over all ranks) and gradient norm of each step that was made: [S, 2]."""
    made = []
    for step in range(first, last):
        rows = rows_of(step)
        count, total = supervised(rows), torch.zeros(())
        stride = micro_batch * engine.data_ranks
        for at in range(engine.data_rank * micro_batch, ROWS, stride):
            entropy, z_loss = engine.accumulate(collate(rows[at : at + micro_batch]), count, last=at + stride >= ROWS)
            total += entropy + z_loss
        if engine.world_size > 1:
            torch.distributed.all_reduce(total)
        if step == left_out:
            engine.discard()
        else:
            made.append((float(total) / count, engine.step(1.0 - 0.2 * (step % 4))))
    return np.array(made)


def state_of(engine: Any) -> State:
    return {name: {key: value.clone() for key, value in state.items()} for name, state in engine.named_state()}


def reference(
    micro_batch: int = ROWS, rows_of: Callable[[int], list[Row]] = rows_of_step, model: str = "plain", **keys: Any
) -> tuple[Any, State]:
    engine = torch_engine(table(**keys), model)
    made = steps(engine, micro_batch, rows_of=rows_of)
    return made, state_of(engine)


def deepspeed(
    options: PretrainTable, micro_batch: int, rows_of: Callable[[int], list[Row]] = rows_of_step, model: str = "plain"
) -> tuple[np.ndarray, State]:
    engine = deepspeed_engine(options, micro_batch, model)
    made = steps(engine, micro_batch, rows_of=rows_of)
    return made, state_of(engine)


def compare(mine: State, theirs: State, tolerance: float = 1e-5) -> None:
    assert mine.keys() == theirs.keys()
    for name in theirs:
        assert mine[name].keys() == theirs[name].keys(), name
        for key in theirs[name]:
            torch.testing.assert_close(mine[name][key], theirs[name][key], rtol=tolerance, atol=tolerance, msg=f"{name} {key}")
