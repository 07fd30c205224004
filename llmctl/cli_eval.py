"""Verbs that measure a checkpoint."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llmctl.cli_completion import CHECKPOINTS, TASKS
from llmctl.cli_options import Runs, readable_errors

Checkpoints = Annotated[
    list[str] | None,
    typer.Argument(
        help="Model folders, adapters, stage folders or RUN/STAGE. Left out: the newest.",
        show_default=False,
        autocompletion=CHECKPOINTS,
    ),
]
Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        metavar="NAME",
        help="builtin, olmes, base-easy ...; may be repeated.",
        show_default="the recipe's",
        autocompletion=TASKS,
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="As arc_easy:rc, lm-eval:piqa, or an own one's FILE.toml; may be repeated.",
        autocompletion=TASKS,
    ),
]
Shots = Annotated[
    int | None, typer.Option("--shots", min=0, help="Examples in the prompt.", show_default="the task's or recipe's")
]
Questions = Annotated[
    str | None, typer.Option("--questions", metavar="N|all", help="Of each task at most.", show_default="the recipe's")
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against", metavar="CHECKPOINT", help="Compare with this one.", show_default="the parent", autocompletion=CHECKPOINTS
    ),
]
Texts = Annotated[list[Path] | None, typer.Option("--text", metavar="FILE", help="The same of a file of yours; may be repeated.")]
Stride = Annotated[
    int | None, typer.Option("--stride", min=1, help="Tokens between its windows.", show_default="half the context")
]
Window = Annotated[
    int | None, typer.Option("--window", min=1, help="Tokens of its windows.", show_default="the context, at most 8192")
]
HarnessJson = Annotated[
    Path | None, typer.Option("--lm-eval-json", metavar="DIR", help="Also in the format of lm-evaluation-harness.")
]
HarnessTasks = Annotated[
    Path | None, typer.Option("--lm-eval-tasks", metavar="DIR", help="Folder of YAML tasks for lm-eval:NAME.")
]


def evaluate(
    checkpoints: Checkpoints = None,
    few_shot: Annotated[bool, typer.Option("--few-shot", help="Also with examples in the prompt.")] = False,
    shots: Shots = None,
    suite: Suites = None,
    task: Tasks = None,
    questions: Questions = None,
    against: Against = None,
    base: Annotated[str | None, typer.Option("--base", metavar="MODEL", help="Of an adapter.", show_default="its own")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts through the chat template.")] = False,
    show_prompts: Annotated[int, typer.Option("--show-prompts", metavar="N", min=0, help="Print N prompts of each task.")] = 0,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run programs that the model writes (pass@k).")] = False,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32: of the products.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Of questions and examples.", show_default="the recipe's")] = None,
    perplexity: Annotated[bool, typer.Option("--perplexity", help="Bits per byte of every held-out source.")] = False,
    text: Texts = None,
    stride: Stride = None,
    window: Window = None,
    long: Annotated[bool, typer.Option("--long", help="Long-context tasks, needle map, loss by position.")] = False,
    over_run: Annotated[bool, typer.Option("--over-run", help="All checkpoints that led to this one, as curves.")] = False,
    plots: Annotated[Path | None, typer.Option("--plots", metavar="DIR", help="Draw what --long and --over-run measure.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the scores to this file.")] = None,
    harness_json: HarnessJson = None,
    harness_tasks: HarnessTasks = None,
    list_all: Annotated[bool, typer.Option("--list", help="List all suites and tasks.")] = False,
    runs: Runs = None,
) -> None:
    """Score checkpoints beside their parent, and beside chance: few-shot tasks, bits per byte, long context.

    Example: llmctl eval --few-shot
    Example: llmctl eval olmo_small/sft --suite olmes --questions 100 --json scores.json
    """
    with readable_errors():
        if list_all:
            from llmctl.views.tasks import show_tasks

            show_tasks()
            return
        from llmctl.stages.eval_command import Measures, Output, evaluate_checkpoints, precision_of, questions_of
        from llmctl.views.progress import screen

        wanted = Measures(
            (*(suite or ()), *(task or ())),
            few_shot,
            shots,
            questions_of(questions),
            seed,
            chat,
            allow_code,
            show_prompts,
            precision_of(precision),
            harness_tasks,
            perplexity,
            tuple(text or ()),
            stride,
            window,
            long,
            over_run,
        )
        with screen() as shown, shown.stage("eval"):
            evaluate_checkpoints(checkpoints or (), wanted, against, base, Output(json_file, harness_json, plots), runs)


def probe(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Model folder, adapter, stage folder, RUN/STAGE or hub name.", show_default=False, autocompletion=CHECKPOINTS
        ),
    ],
    data: Annotated[Path, typer.Argument(help="CSV, JSON lines or Parquet; or a folder of train and test.", show_default=False)],
    text_column: Annotated[str | None, typer.Option(help="Column of the texts.", show_default="by its name")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the classes.", show_default="by its name")] = None,
    test: Annotated[Path | None, typer.Option(help="Test file.", show_default="a fifth of the rows")] = None,
    shots: Annotated[str, typer.Option(metavar="NUMBERS", help="Examples of each class.")] = "1,2,4,8,16",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of examples.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the first draw, the held-out part, the untrained model.")] = 1,
    layer: Annotated[str, typer.Option(metavar="N|all|last", help="Layer; all: the best by cross-validation.")] = "all",
    pool: Annotated[Literal["mean", "last"], typer.Option(help="Of a text's tokens.")] = "mean",
    test_rows: Annotated[int, typer.Option(min=1, help="Rows of the test at most, drawn by the seed.")] = 1000,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw the curve and a map of classes there.")] = None,
    map_classes: Annotated[str | None, typer.Option(metavar="NAMES", help="Classes to draw.", show_default="12 largest")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers to this file.")] = None,
    runs: Runs = None,
) -> None:
    """Classify texts by a model's hidden states, beside a bag of words and the untrained model.

    Example: llmctl probe olmo/pretrain reviews.csv --plots pictures
    """
    from llmctl.stages.probing import Wish, probe_checkpoint
    from llmctl.views.progress import screen

    wish = Wish(text_column, label_column, test, shots, seeds, seed, layer, pool, test_rows, map_classes)
    with readable_errors(), screen() as shown, shown.stage("probe"):
        probe_checkpoint(checkpoint, data, wish, plots, json_file, runs)
