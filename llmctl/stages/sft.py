"""sft: conversations, with the loss on the assistant's words and closing token alone.

Reported, on held-out conversations: loss on the answers (template and closing tokens left out), exact match on questions
whose answer stands in the question, and how many answers end with the end-of-turn token; the parent beside the result.
"""

from typing import Any

from llmctl import events
from llmctl.recipe.chat_schema import ChatTable
from llmctl.stages.measure import change, opened, tokenizer_of
from llmctl.stages.training import Specialty, Stage

EXTRACTIVE = ("signature", "module", "error")
ANSWER_TOKENS = 96


def data(stage: Stage) -> list[Any]:
    """Token shards with masks, made from the conversations inside the stage's own folder."""
    from llmctl.corpus.documents import read_conversations
    from llmctl.tokens.chat_shards import write_chat_shards
    from llmctl.train.job import DataPart

    table, tokenizer = stage.table, tokenizer_of(stage)
    assert isinstance(table, ChatTable)
    parts = []
    for source, share in table.mix.items():
        out = stage.folder / "data" / source
        if not out.exists():
            conversations = read_conversations(stage.corpus, source, "train")
            write_chat_shards(conversations, tokenizer, out, table.loss_on, table.seq_len)
        parts.append(DataPart(source, str(out), share, "best_fit"))
    return parts


def report(stage: Stage) -> dict[str, float]:
    from llmctl.evals.answers import answer_loss, answers, exact_matches, share_ended
    from llmctl.stages.heldout import sample_conversations

    tokenizer, count = tokenizer_of(stage), stage.recipe.eval.generations
    conversations = sample_conversations(stage.corpus, list(stage.table.mix), 3 * count, stage.recipe.seed)
    asked = conversations[:count]
    rows, metrics = {}, {}
    for name, folder in (("before", stage.parent_model), ("after", stage.model)):
        assert folder is not None
        with opened(folder) as model:
            rows[name] = {"loss on held-out answers": answer_loss(model, tokenizer, conversations)}
            written = answers(model, tokenizer, asked, ANSWER_TOKENS)
            rows[name]["answers that end"] = share_ended(written)
            for label, kinds in {"extractive": EXTRACTIVE, **{kind: (kind,) for kind in EXTRACTIVE}}.items():
                chosen = [index for index, c in enumerate(asked) if c.kind in kinds]
                if chosen:
                    rows[name][f"exact match, {label} ({len(chosen)})"] = exact_matches(
                        [written[index] for index in chosen], [asked[index] for index in chosen]
                    )
    for measure, before in rows["before"].items():
        metrics[f"{measure}/before"], metrics[f"{measure}/after"] = before, rows["after"][measure]
    events.emit(
        events.Table(
            f"{stage.name}: {len(conversations)} held-out conversations",
            ("measure", "before", "after", "change"),
            tuple(
                (m, f"{before:.3f}", f"{rows['after'][m]:.3f}", change(before, rows["after"][m]) if before else "")
                for m, before in rows["before"].items()
            ),
        )
    )
    return metrics


SPECIALTY = Specialty(data, lambda stage: {}, report)
