"""Tasks of lm-evaluation-harness (`lm-eval:<task>`), asked by its own code and scored by llmctl."""

import contextlib
import difflib
import io
import logging
import math
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import UserError, require_package
from llmctl.evals.prompts import require_template
from llmctl.evals.result import Asking, TaskResult
from llmctl.suites.catalog import HARNESS
from llmctl.suites.task import Measure, Normalisation

HUB_ANSWERS_IN = 3.0  # seconds; `datasets` itself tries for 23 s, and for minutes where packets get lost
RESAMPLINGS = 1000  # of a measure that is no mean, for its standard error; lm_eval's 100,000 take minutes

MEASURES: dict[str, tuple[Measure, Normalisation]] = {
    "acc": ("accuracy", "none"),
    "acc_norm": ("accuracy", "character"),
    "acc_bytes": ("accuracy", "byte"),
    "acc_mutual_info": ("accuracy", "unconditional"),
    "exact_match": ("exact_match", "none"),
    "f1": ("f1", "none"),
    "bits_per_byte": ("bits_per_byte", "none"),
}
"""What lm_eval calls a measure, and what it is here; `score` or `error` is any other."""


@dataclass(frozen=True, slots=True)
class HarnessTasks:
    """Tasks with their questions, as lm_eval has loaded them."""

    names: tuple[str, ...]
    loaded: dict[str, Any]
    """lm_eval's `TaskDict`."""
    shots: dict[str, int | None]
    """Examples that each task comes with; None: it does not say."""


@dataclass(frozen=True, slots=True)
class HarnessScores:
    results: tuple[TaskResult, ...]
    """Of each task whose number is the mean of its questions' values, for paired differences. `also` holds every such measure
    under lm_eval's name for it ("acc_norm,none"), the task's own first."""
    aggregated: dict[str, Any]
    """Everything as lm_eval gives it, groups too, without the questions."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """lm_eval, and `datasets` under it, log, print and draw bars; nothing of it is shown."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    sink = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def load_tasks(names: Sequence[str], include: Path | None = None) -> HarnessTasks:
    """The tasks, groups or tags of these names, with or without "lm-eval:" before them, or YAML files of tasks.

    `include`: a folder with tasks (YAML) of the user's own; they go before lm_eval's.

    Raises:
        UserError: lm_eval is not installed, it has no such task, or the data of a task are not here and cannot be fetched.
    """
    require_package("lm_eval", "lm-eval tasks are read by lm-evaluation-harness, which")
    wanted = tuple(name.removeprefix(HARNESS) for name in names)
    tasks: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    with quiet():
        manager = _manager(wanted, include)
        for name in wanted:
            with _hub_or_cache() as silence:
                found = _load(manager, name, silence)
            tasks |= found["tasks"]
            groups |= found.get("groups", {})
    loaded = {"tasks": tasks, "groups": groups, "group_map": {name: group.child_names for name, group in groups.items()}}
    return HarnessTasks(wanted, loaded, {name: task.get_config("num_fewshot") for name, task in tasks.items()})


def _manager(names: Sequence[str], include: Path | None) -> Any:
    """lm_eval's index of tasks: that of the user's own alone where it holds all names, for the whole takes 9 s to read."""
    from lm_eval.tasks import TaskManager

    if include is not None and not include.is_dir():
        raise UserError(f"{include}: a folder with task files (YAML) of lm-evaluation-harness was expected")
    own = TaskManager(include_path=include, include_defaults=False)
    if all(name in own.all_subtasks or Path(name).is_file() for name in names):
        return own
    manager = TaskManager(include_path=include)
    for name in names:
        if name not in manager.all_tasks and not Path(name).is_file():
            near = difflib.get_close_matches(name, manager.all_tasks, n=3, cutoff=0.6)
            hint = f"; did you mean {', '.join(HARNESS + one for one in near)}?" if near else "; `lm-eval ls tasks` lists them"
            raise UserError(f"{HARNESS}{name}: lm-evaluation-harness has no such task{hint}")
    return manager


def _load(manager: Any, name: str, silence: str) -> Any:
    try:
        return manager.load(name)
    except ConnectionError as error:
        raise UserError(
            f"{HARNESS}{name}: its data set is not on this machine, and could not be fetched: "
            f"{silence or 'the connection broke'}: {str(error).splitlines()[0]}. Point HF_HOME at a copy of the cache of one "
            "that has it (HF_DATASETS_OFFLINE=1 keeps to the cache), or give a task of your own whose dataset_path is json and "
            "whose dataset_kwargs name local files"
        ) from None
    except Exception as error:  # tasks are programs of their authors: anything may go wrong in them
        told = (str(error).strip() or "no message").splitlines()[0]
        raise UserError(f"{HARNESS}{name}: the task could not be loaded ({type(error).__name__}): {told}") from error


@contextlib.contextmanager
def _hub_or_cache() -> Iterator[str]:
    """Why the hub is not to be asked; empty: it answers. Where it is not, `datasets` looks into its cache alone, and says at
    once what is missing."""
    import datasets.config
    from huggingface_hub import constants

    silence = ""
    if constants.is_offline_mode() or datasets.config.HF_HUB_OFFLINE:
        silence = "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set"
    elif not _hub_answers(constants.ENDPOINT):
        silence = f"{constants.ENDPOINT} does not answer"
    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if silence:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield silence
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _hub_answers(endpoint: str) -> bool:
    """In a thread of its own: no timeout of a connection covers the look-up of its name."""
    from huggingface_hub.utils import get_session

    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(get_session().head, endpoint, timeout=HUB_ANSWERS_IN).result(HUB_ANSWERS_IN)
    except Exception:  # whatever it is, the data cannot be fetched
        return False
    finally:
        pool.shutdown(wait=False)
    return True


def evaluate_harness(
    model: Any, tokenizer: Any, tasks: HarnessTasks, asking: Asking, questions: int | None = None
) -> HarnessScores:
    """Ask the first `questions` of each task (None: all). `model` attends to packed documents (`use_packed_attention`).

    Shots, chat template, seed and context come from `asking`; tasks that lm_eval has fixed at no examples keep to none.

    Raises:
        UserError: the tokenizer has no chat template, a task runs what a model writes, or a task cannot be
            asked in this context.
    """
    from lm_eval.evaluator import evaluate

    from llmctl.evals.harness_model import HarnessModel

    if asking.chat:
        require_template(tokenizer)
    limit = int(asking.limit or model.config.get_text_config().max_position_embeddings)
    scorer = HarnessModel(model, tokenizer, limit, asking.seed)
    _set(tasks, asking)
    os.environ.setdefault("DISABLE_MULTIPROC", "1")  # a process for every core, for a standard error
    with quiet():
        try:
            found: Any = evaluate(
                lm=scorer,
                task_dict=tasks.loaded,
                limit=questions,
                bootstrap_iters=RESAMPLINGS,
                log_samples=True,
                apply_chat_template=asking.chat,
                fewshot_as_multiturn=False,
            )
        except UserError:
            raise
        except Exception as error:  # tasks are programs of their authors: anything may go wrong in them
            told = (str(error).strip() or "no message").splitlines()[0]
            names = ", ".join(HARNESS + name for name in tasks.names)
            raise UserError(f"{names}: lm-evaluation-harness could not ask it ({type(error).__name__}): {told}") from error
    samples = found.pop("samples")
    results = (task_result(name, rows, found, scorer.cut.get(name, set()), asking.show) for name, rows in samples.items())
    return HarnessScores(tuple(result for result in results if result is not None), found)


def _set(tasks: HarnessTasks, asking: Asking) -> None:
    """Seeds and numbers of examples, as `lm_eval.simple_evaluate` sets them."""
    import torch

    random.seed(asking.seed)
    np.random.seed(asking.seed)
    torch.manual_seed(asking.seed)
    for name, task in tasks.loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(
                f"{HARNESS}{name}: lm-evaluation-harness would run programs that the model writes unguarded, in its own process; "
                "llmctl's own codex_humaneval:gen and codex_mbpp:gen run them apart, with --allow-code"
            )
        own = tasks.shots[name]
        task.set_config(key="num_fewshot", value=own if own == 0 or asking.shots is None else asking.shots)
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=asking.seed)


def task_result(name: str, rows: Sequence[dict[str, Any]], found: dict[str, Any], cut: set[int], show: int) -> TaskResult | None:
    """Every question's values from lm_eval's log of them; None where none of the task's numbers is a mean of such values."""
    also, shares = question_values(rows, found["results"][name], [one["metric"] for one in metrics_of(found, name)])
    if not also:
        return None
    primary = next(iter(also))
    metric = primary.partition(",")[0]
    better = found["higher_is_better"][name].get(metric, True)
    measure, normalisation = MEASURES.get(metric, ("score" if better else "error", "none"))
    first = [row for row in rows if row["filter"] == rows[0]["filter"]]
    ids = tuple(str(row["doc_id"]) for row in first)
    return TaskResult(
        HARNESS + name,
        measure,
        normalisation,
        int(found["n-shot"].get(name) or 0),
        also[primary],
        shares or (1 / len(ids),) * len(ids),
        ("",) * len(ids),
        ids,
        also,
        cut=tuple(one for one in ids if int(one) in cut),
        prompts=tuple(shown(row) for row in first[:show]),
        log_likelihoods=tuple(map(log_likelihoods, first)) if log_likelihoods(rows[0]) else (),
    )


def log_likelihoods(row: dict[str, Any]) -> tuple[float, ...]:
    """Of a question's choices; empty where it has none."""
    found = row["filtered_resps"]
    return tuple(one[0] for one in found) if all(isinstance(one, tuple) for one in found) else ()


def shown(row: dict[str, Any]) -> str:
    """A prompt with the right choice after a mark, as `TaskResult.prompts` has them."""
    target, asked = row["target"], row["arguments"]
    first, *rest = asked[target if isinstance(target, int) and 0 <= target < len(asked) else 0]
    return f"{first}⟦{rest[0]}⟧" if rest and isinstance(rest[0], str) else first


def metrics_of(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [one for one in found["configs"][name].get("metric_list") or [] if isinstance(one.get("metric"), str)]


def question_values(
    rows: Sequence[dict[str, Any]], numbers: dict[str, Any], order: Sequence[str]
) -> tuple[dict[str, tuple[float, ...]], tuple[float, ...]]:
    """Values of each question by measure and filter ("acc,none"), those measures alone whose mean is lm_eval's number for the
    task, and, for bits per byte, each question's share of the bytes (empty: all count alike)."""
    logged: dict[str, list[Any]] = {}
    for row in rows:
        for metric in row["metrics"]:
            logged.setdefault(f"{metric},{row['filter']}", []).append(row[metric])
    known = {metric: place for place, metric in enumerate(order)}
    also = {}
    for key in sorted(logged, key=lambda key: known.get(key.partition(",")[0], len(known))):
        values = logged[key]
        if all(isinstance(value, int | float | np.number) for value in values):
            mean = float(np.mean(values))
            if math.isclose(mean, numbers.get(key, math.nan), rel_tol=1e-6, abs_tol=1e-9):
                also[key] = tuple(float(value) for value in values)
    if also or "bits_per_byte,none" not in logged:
        return also, ()
    nats, sizes = np.array(logged["bits_per_byte,none"], dtype=float).T
    return {"bits_per_byte,none": tuple((-nats / sizes / math.log(2)).tolist())}, tuple((sizes / sizes.sum()).tolist())
