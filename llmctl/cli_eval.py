"""Verbs that measure a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli_options import Runs, readable_errors

Checkpoints = Annotated[
    list[str] | None,
    typer.Argument(help="Model folders, adapters, stage folders or RUN/STAGE. Left out: the newest.", show_default=False),
]
Suites = Annotated[
    list[str] | None,
    typer.Option("--suite", metavar="NAME", help="builtin, olmes, base-easy ...; may be repeated.", show_default="the recipe's"),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="NAME", help="As arc_easy:rc, lm-eval:piqa, or an own one's FILE.toml; may be repeated."),
]


def evaluate(
    checkpoints: Checkpoints = None,
    few_shot: Annotated[bool, typer.Option("--few-shot", help="Also with examples in the prompt.")] = False,
    shots: Annotated[
        int | None, typer.Option("--shots", min=0, help="Examples in the prompt.", show_default="the task's or recipe's")
    ] = None,
    suite: Suites = None,
    task: Tasks = None,
    questions: Annotated[
        str | None, typer.Option("--questions", metavar="N|all", help="Of each task at most.", show_default="the recipe's")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="CHECKPOINT", help="Compare with this one.", show_default="the parent")
    ] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="MODEL", help="Of an adapter.", show_default="its own")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts through the chat template.")] = False,
    show_prompts: Annotated[int, typer.Option("--show-prompts", metavar="N", min=0, help="Print N prompts of each task.")] = 0,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run programs that the model writes (pass@k).")] = False,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32: of the products.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="Of questions and examples.", show_default="the recipe's")] = None,
    long: Annotated[
        bool, typer.Option("--long", help="Long-context tasks, needle map, loss by position; with --few-shot the tasks, too.")
    ] = False,
    plots: Annotated[Path | None, typer.Option("--plots", metavar="DIR", help="Draw what is measured there.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the scores to this file.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List all suites and tasks.")] = False,
    runs: Runs = None,
) -> None:
    """Score checkpoints beside their parent, and beside chance: few-shot tasks, bits per byte, long context.

    Example: llmctl eval --few-shot
    Example: llmctl eval olmo_small/sft --suite olmes --questions 100 --json scores.json
    """
    from llmctl.errors import UserError

    with readable_errors():
        if list_all:
            from llmctl.views.tasks import show_tasks

            show_tasks()
            return
        from llmctl.stages.eval_command import Measures, evaluate_checkpoints, precision_of, questions_of
        from llmctl.views.progress import screen

        if plots is not None and not long:
            raise UserError("--plots draws what --long measures: give --long, too")
        names = (*(suite or ()), *(task or ()))
        wanted = Measures(
            names,
            few_shot or shots is not None or bool(names) or not long,
            few_shot,
            shots,
            questions_of(questions),
            seed,
            chat,
            allow_code,
            show_prompts,
            precision_of(precision),
            long=long,
            plots=plots,
        )
        with screen() as shown, shown.stage("eval"):
            evaluate_checkpoints(checkpoints or (), wanted, against, base, json_file, runs)
