"""sft: conversations, with the loss on the assistant's words and closing token alone.

Reported, on held-out conversations, the parent beside the result: loss on the answers (template and closing tokens left out),
exact matches, how many answers end with the end-of-turn token; and answers to be read, in `answers.html`.
"""

from typing import Any

from llmctl import events
from llmctl.stages.measure import change, opened, tokenizer_of
from llmctl.stages.talks import added_tokens, chat_table, prepare
from llmctl.stages.training import Specialty, Stage

EXTRACTIVE = ("signature", "module", "error")
"""Kinds of built-in questions whose answers stand in them."""
LOSS, ENDED = "loss on held-out answers", "answers that end"


def data(stage: Stage) -> list[Any]:
    """Token shards with masks, made from the conversations inside the stage's own folder.

    Raises:
        DeadRun: training on them would teach nothing, or something wrong.
    """
    from llmctl.preflight.chat import refuse
    from llmctl.train.job import DataPart

    talks = prepare(stage)
    refuse(stage.name, talks.findings)
    return [DataPart(source, str(talks.train[source]), share, "best_fit") for source, share in chat_table(stage).mix.items()]


def additions(stage: Stage) -> dict[str, Any]:
    return {"vocabulary": len(tokenizer_of(stage))} if added_tokens(stage) else {}


def report(stage: Stage) -> dict[str, float]:
    from llmctl.evals.answers import answer_loss, answers, to_ask
    from llmctl.model.embeddings import resize_embeddings
    from llmctl.model.load import load_config
    from llmctl.stages.answer_page import write_answers
    from llmctl.stages.heldout import sample_conversations

    tokenizer, table = tokenizer_of(stage), stage.recipe.eval
    conversations = sample_conversations(stage.corpus, list(stage.table.mix), 3 * table.generations, stage.recipe.seed)
    configs = [load_config(str(folder)).get_text_config() for folder in (stage.parent_model, stage.model)]
    context = min(config.max_position_embeddings for config in configs)
    room = min(table.answer_tokens, context // 2)
    asked = to_ask(tokenizer, conversations, context - room)[: table.generations]
    if not asked:
        events.warn(f"{stage.name}: no held-out question fits the model's context of {context:,} tokens beside an answer")
    measured, written = {}, {}
    for name, folder in (("before", stage.parent_model), ("after", stage.model)):
        assert folder is not None
        with opened(folder, lambda model: resize_embeddings(model, len(tokenizer))) as model:
            loss = answer_loss(model, tokenizer, conversations, context)
            written[name] = answers(model, tokenizer, asked, room)
        measured[name] = {LOSS: loss} | shares(written[name], asked)
    write_answers(stage, asked, written["before"], written["after"])
    events.emit(
        events.Table(
            f"{stage.name}: {len(conversations)} held-out conversations",
            ("measure", "before", "after", "change"),
            tuple((what, *told(what, before, measured["after"][what])) for what, before in measured["before"].items()),
        )
    )
    return {f"{what}/{name}": values[what] for what in measured["before"] for name, values in measured.items()}


def shares(written: list[Any], asked: list[Any]) -> dict[str, float]:
    """Shares of the answers that end, and that are right to the letter: of all, and of the built-in kinds that can be."""
    from llmctl.evals.answers import exact_matches, share_ended

    if not asked:
        return {}
    found = {ENDED: share_ended(written)}
    kinds = {one.conversation.kind for one in asked}
    groups = {"": tuple(kinds)}
    if not kinds.isdisjoint(EXTRACTIVE):
        groups = {", extractive": EXTRACTIVE} | {f", {kind}": (kind,) for kind in EXTRACTIVE}
    for label, chosen in groups.items():
        of_kind = [index for index, one in enumerate(asked) if one.conversation.kind in chosen]
        if of_kind:
            right = exact_matches([written[index] for index in of_kind], [asked[index] for index in of_kind])
            found[f"exact match{label} ({len(of_kind)})"] = right
    return found


def told(measure: str, before: float, after: float) -> tuple[str, str, str]:
    """Before, after and the change: of a loss in percent of it, of a share in points."""
    if measure == LOSS:
        return f"{before:.3f}", f"{after:.3f}", change(before, after)
    return f"{before:.1%}", f"{after:.1%}", f"{100 * (after - before):+.1f} points"


SPECIALTY = Specialty(data, additions, report)
