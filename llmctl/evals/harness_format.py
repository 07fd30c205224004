"""Scores in the results format of lm-evaluation-harness, for the tools that read it: `results_<date>.json` in a folder named
after the model, as its `EvaluationTracker` (lm_eval 0.4.13) leaves it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from llmctl.evals.compare import Score, higher_is_better
from llmctl.evals.result import Asking, TaskResult, standard_error
from llmctl.runs.files import write_json
from llmctl.suites.catalog import HARNESS

NAMES = {
    "accuracy/none": "acc",
    "accuracy/character": "acc_per_char",
    "accuracy/byte": "acc_per_byte",
    "accuracy/token": "acc_per_token",
    "accuracy/unconditional": "acc_mutual_info",
    "pass_at_k": "pass@k",
}
"""What lm_eval calls a measure. Its acc_norm and acc_bytes leave the space before a choice out of the length; OLMES's, which are
these, count it, and have names of their own."""
NO_ERROR = "N/A"
PARTS = ("results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")


@dataclass(frozen=True, slots=True)
class ModelScores:
    """What one checkpoint scored."""

    model: str
    """Folder or hub name."""
    results: Sequence[TaskResult]
    aggregates: Mapping[str, tuple[Score, tuple[str, ...]]] = field(default_factory=dict)
    """Numbers made of several tasks, with the names of these."""
    harness: Sequence[Mapping[str, Any]] = ()
    """`HarnessScores.aggregated` of the tasks that lm_eval asked: they are written as they are."""
    versions: Mapping[str, int | str] = field(default_factory=dict)
    """Of tasks, by name."""
    of: Mapping[str, int] = field(default_factory=dict)
    """Questions that tasks have in all, where not all were asked."""
    chat_template: str | None = None
    """Where prompts went through it."""


def write_results(folder: Path, scores: ModelScores, asking: Asking, started: datetime, ended: datetime) -> Path:
    """One file for the checkpoint below `folder`; the file."""
    name = f"results_{ended.isoformat().replace(':', '-')}.json"
    file = folder / sanitized(scores.model) / name
    write_json(file, plain(harness_results(scores, asking, started, ended)))
    return file


def harness_results(scores: ModelScores, asking: Asking, started: datetime, ended: datetime) -> dict[str, Any]:
    """The content of such a file, without the questions."""
    found: dict[str, Any] = {part: {} for part in PARTS}
    for result in scores.results:
        if not (result.task.startswith(HARNESS) and scores.harness):
            _add_task(found, result, scores)
    for name, (one, members) in scores.aggregates.items():
        row = {"name": name, "alias": name, **_numbers("score", one.value, one.stderr)}
        found["results"][name] = found["groups"][name] = row
        found["group_subtasks"][name] = list(members)
        found["versions"][name] = scores.versions.get(name, "N/A")
        found["higher_is_better"][name] = {"score": one.higher_is_better}
    for theirs in scores.harness:
        for part in PARTS:
            found[part] |= theirs.get(part, {})
    if not found["groups"]:
        del found["groups"]
    return found | _about(scores, asking, started, ended)


def _add_task(found: dict[str, Any], result: TaskResult, scores: ModelScores) -> None:
    primary = f"accuracy/{result.normalisation}" if result.measure == "accuracy" else str(result.measure)
    measures = {primary: result.values} | result.also
    row: dict[str, Any] = {"name": result.task, "alias": result.task, "sample_len": len(result.values)}
    better: dict[str, bool] = {}
    for measure, values in measures.items():
        name = NAMES.get(measure, measure)
        mean = sum(value * weight for value, weight in zip(values, result.weights, strict=True))
        row |= _numbers(name, mean, standard_error(values, result.weights, result.groups))
        better[name] = higher_is_better(result) if measure == primary else measure != "bits_per_byte"
    found["results"][result.task] = row
    found["configs"][result.task] = {
        "task": result.task,
        "num_fewshot": result.shots,
        "metric_list": [{"metric": NAMES.get(m, m), "higher_is_better": better[NAMES.get(m, m)]} for m in measures],
        "metadata": {"version": scores.versions.get(result.task, "N/A"), "scored_by": "llmctl"},
    }
    found["versions"][result.task] = scores.versions.get(result.task, "N/A")
    found["n-shot"][result.task] = result.shots
    found["higher_is_better"][result.task] = better
    asked = len(result.values)
    found["n-samples"][result.task] = {"original": scores.of.get(result.task) or asked, "effective": asked}


def _numbers(measure: str, value: float, error: float) -> dict[str, Any]:
    return {f"{measure},none": value, f"{measure}_stderr,none": NO_ERROR if math.isnan(error) else error}


def _about(scores: ModelScores, asking: Asking, started: datetime, ended: datetime) -> dict[str, Any]:
    return {
        "config": {
            "model": "llmctl",
            "model_args": {"pretrained": scores.model},
            "batch_size": None,
            "batch_sizes": [],
            "device": None,
            "use_cache": None,
            "limit": None,
            "bootstrap_iters": 0,
            "gen_kwargs": None,
            "random_seed": asking.seed,
            "numpy_seed": asking.seed,
            "torch_seed": asking.seed,
            "fewshot_seed": asking.seed,
        },
        "git_hash": None,
        "date": started.timestamp(),
        "transformers_version": _version("transformers"),
        "lm_eval_version": _version("lm_eval"),
        "llmctl_version": _version("llmctl"),
        "max_length": asking.limit,
        "task_hashes": {},
        "model_source": "llmctl",
        "model_name": scores.model,
        "model_name_sanitized": sanitized(scores.model),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": False,
        "chat_template": scores.chat_template,
        "chat_template_sha": None if scores.chat_template is None else sha256(scores.chat_template.encode()).hexdigest(),
        "start_time": started.timestamp(),
        "end_time": ended.timestamp(),
        "total_evaluation_time_seconds": str((ended - started).total_seconds()),
    }


def sanitized(model: str) -> str:
    """A model's name as that of a folder, as `lm_eval.utils.sanitize_model_name` has it."""
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", model)


def plain(value: Any) -> Any:
    """What lm_eval leaves, functions and numbers of numpy among it, as JSON holds it."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, int) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
