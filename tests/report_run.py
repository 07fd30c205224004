"""A finished run of six stages, written by what writes a real one, with numbers that are made up."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from llmctl import events
from llmctl.evals.result import TaskResult
from llmctl.runs.artifact import Artifact
from llmctl.runs.files import write_json
from llmctl.runs.store import RunStore
from llmctl.stages.score_tables import plain
from llmctl.stages.scoring import Checkpoint, Line, Request, Scores
from llmctl.views.records import log_writer, metrics_writer

STAGES = ("corpus", "tokenizer", "tokens", "pretrain", "longctx", "sft", "eval")
NASTY = "<script>alert('x')</script> & <b>"
TRAINED = {"pretrain": None, "longctx": "pretrain", "sft": "longctx"}
WARNINGS = {"pretrain": "step 7 is left out: its loss", "sft": f"a row says {NASTY}", "corpus": "two files could not be read"}
RECIPE = {
    "path": "recipes/made.toml",
    "overrides": ["pretrain.lr=1e-3"],
    "smoke": False,
    "resolved": {
        "name": "made",
        "corpus": {"sources": {"code": {"kind": "text", "path": "code"}, "talk": {"kind": "chat", "path": "talk"}}},
        "model": {"layers": 2, "hidden_size": 8},
        "stages": {name: {"name": name, "kind": name, "from": parent} for name, parent in TRAINED.items()},
        "eval": {"suites": ["builtin"]},
    },
}


def write_run(root: Path, name: str = "made") -> Path:
    """Returns the folder of the run."""
    store, made = RunStore(root), {}
    store.record_recipe(name, RECIPE)
    for number, stage in enumerate(STAGES):
        artifact = store.artifact(name, stage, f"{number:012x}")
        artifact.create()
        leave, metrics = LEFT[stage](artifact)
        parents = {parent: made[parent] for parent in STAGES[:number]}
        artifact.commit(stage, parents, {"stage": {"from": TRAINED.get(stage)}}, leave, [], metrics, 1e9 + 100 * number)
        manifest = json.loads((artifact.folder / "manifest.json").read_text())
        write_json(artifact.folder / "manifest.json", manifest | {"seconds": 60.0, "ended": manifest["started"] + 60})
        artifact.set_state(status="done")
        made[stage] = artifact
    return root / name


def say(artifact: Artifact) -> None:
    with log_writer(artifact.log_path):
        events.say(f"{artifact.stage} has begun")
        events.emit(events.Table(f"{artifact.stage}: a table", ("what", "value"), (("first", "1"),)))
        if warning := WARNINGS.get(artifact.stage):
            events.warn(warning)


def train(artifact: Artifact, steps: int = 40) -> None:
    say(artifact)
    with metrics_writer(artifact.metrics_path):
        for step in range(1, steps + 1):
            loss = math.nan if step == 9 else 9.0 if step == 7 else 4 - step / steps
            events.metrics(
                {
                    "step": step,
                    "steps": steps,
                    "tokens": 100 * step,
                    "loss": loss,
                    "gradient_norm": 1.0,
                    "left_out": int(step == 7),
                }
                | {"learning_rate": 1e-3, "memory_bytes": 2**30, "tokens_per_second": 0.0 if step == 1 else 500.0}
            )
        events.metrics({"step": steps, "heldout_loss": 3.2})
    parts = [{"source": "code", "share": 0.75, "label": "long"}, {"source": "code", "share": 0.25, "label": ""}]
    write_json(artifact.folder / "job.json", {"parts": parts})


def corpus(artifact: Artifact) -> tuple[list[str], dict[str, Any]]:
    say(artifact)
    counts = {"train_documents": 90, "train_bytes": 9000, "heldout_documents": 10, "heldout_bytes": 1000}
    write_json(artifact.folder / "stats.json", {"code": counts})
    row = {"step": "filter", "rule": "min_words", "source": "code", "documents": 25, "bytes": 100, "tokens": None}
    write_json(artifact.folder / "attrition.json", [row])
    return ["stats.json"], {"code": counts}


def tokenizer(artifact: Artifact) -> tuple[list[str], dict[str, Any]]:
    say(artifact)
    return [], {"vocabulary": 512, "bytes_per_token/code": 3.25}


def tokens(artifact: Artifact) -> tuple[list[str], dict[str, Any]]:
    say(artifact)
    return [], {"tokens/code": 123456}


def pretrain(artifact: Artifact) -> tuple[list[str], dict[str, Any]]:
    train(artifact)
    predicted = {"predicted/seconds": 20.0, "measured/seconds": 60.0, "predicted/memory_bytes": 2.0**30}
    bits = {"bits_per_byte": 1.5, "xz_bits_per_byte": 2.0, "xz_primed_bits_per_byte": 1.25}
    return ["metrics.jsonl"], {"tokens/code": 4000} | bits | predicted


def longctx(artifact: Artifact) -> tuple[list[str], dict[str, Any]]:
    from llmctl.evals.guard import Comparison
    from llmctl.evals.long_context import Answered
    from llmctl.recipe.long_schema import GuardTable
    from llmctl.stages.long_measure import Materials, Measured
    from llmctl.stages.long_show import plain as long_plain

    train(artifact)
    found = Materials(64, 256, 1, GuardTable(), "code", [[0] * 257] * 3, [], [], [], [])
    losses = np.linspace(4, 2, 256)[None] + np.array([[0.0], [0.1], [0.2]])
    needles = [
        Answered("needle", length, depth, 1.0, 0.0, 0.25) for length in (64, 256) for depth in (0.0, 1.0) for _ in range(4)
    ]
    results = {name: Measured(losses - place, needles, needles) for place, name in enumerate(("before", "after"))}
    worse = Comparison("bits per byte", 1.0, 2.0, 0.01, 0.02, higher_is_better=False)
    write_json(artifact.folder / "long" / "scores.json", long_plain(found, results, [worse]))
    return ["long"], {"bits_per_byte_before": 1.5, "bits_per_byte_after": 1.2}


def sft(artifact: Artifact) -> tuple[list[str], dict[str, Any]]:
    train(artifact)
    with log_writer(artifact.log_path):
        events.emit(events.Table("continued by the model as it is", ("prompt", "continuation"), (("'def '", "'f(x)'"),)))
    answer = {"id": "a#1", "question": [{"role": "user", "content": "Why?"}], "expected": "Because.",
              "before": {"text": "no", "ended": False}, "after": {"text": NASTY, "ended": True}}  # fmt: skip
    write_json(artifact.folder / "answers.json", [answer])
    measured = {"loss on held-out answers/before": 3.0, "loss on held-out answers/after": 2.0, "answers that end/after": 0.25}
    return ["answers.json"], measured | {"answers that end/before": 0.5}


def evaluation(artifact: Artifact) -> tuple[list[str], dict[str, Any]]:
    say(artifact)

    def result(right: int) -> TaskResult:
        values = tuple(float(place < right) for place in range(20))
        names = tuple(map(str, range(20)))
        return TaskResult("copy", "accuracy", "none", 0, values, (0.05,) * 20, ("",) * 20, names)

    results = {"pretrain": result(2), "longctx": result(18), "sft": result(4)}
    line = Line("copy", 1, "continuation", "built in", "accuracy", "accuracy", 0.25, 0, 20, results)
    checkpoints = [Checkpoint(name, "model", parent) for name, parent in TRAINED.items()]
    write_json(artifact.folder / "scores.json", plain(Scores(Request(("copy",)), checkpoints, [line], [])))
    return ["scores.json"], {}


LEFT = dict(zip(STAGES, (corpus, tokenizer, tokens, pretrain, longctx, sft, evaluation), strict=True))
