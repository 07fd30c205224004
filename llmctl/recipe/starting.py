"""A recipe to begin with, from a goal, a model, data and hardware: `llmctl init` writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from llmctl.recipe.toml_text import Key, Part, toml_text

Goal = Literal["pretrain", "continue", "sft", "lora", "sft+lora"]
GOALS: dict[Goal, str] = {
    "pretrain": "a new model on text; conversations, if there are any, tune it afterwards",
    "continue": "go on with a model on more text; conversations, if there are any, tune it afterwards",
    "sft": "tune a model on conversations, all weights",
    "lora": "tune a model on conversations with an adapter, on frozen weights",
    "sft+lora": "tune all weights on conversations, and then an adapter on the last of them",
}
assert tuple(GOALS) == get_args(Goal)
ON_BASE = ("continue", "sft", "lora", "sft+lora")
LEFT_OUT = "Left out: micro_batch, which is the largest that fits, and batch_tokens, by Olmo 3's model ladder."
LEFT_OUT_TOO = "Left out: micro_batch, which is the largest that fits, and lr and batch_tokens, by Olmo 3's model ladder."


@dataclass(frozen=True, slots=True)
class Data:
    """A source, and what a look at it told."""

    name: str
    path: str
    kind: Literal["text", "chat"]
    text_field: str = "text"
    bytes: int | None = None
    """Of text; None: not known before it is read."""


@dataclass(frozen=True, slots=True)
class Hardware:
    told: str
    """As the command line has it: cpu, or 8xh100."""
    ranks: int
    memory: int | None
    """Bytes of a GPU; None: a CPU."""


@dataclass(frozen=True, slots=True)
class Answers:
    file: str
    """That is written, as it is typed."""
    name: str
    goal: Goal
    base: str | None
    data: Sequence[Data]
    hardware: Hardware
    context: int | None
    """Tokens that the base was trained for, where its configuration is on this machine."""

    def of_kind(self, kind: str) -> list[Data]:
        return [data for data in self.data if data.kind == kind]


@dataclass(frozen=True, slots=True)
class Size:
    """What a new model is on some hardware."""

    shape: Sequence[Key]
    seq_len: int
    tokens: int
    vocabulary: int
    why: str


SMALL = (Key("hidden_size", 192), Key("layers", 4), Key("heads", 3), Key("ffn_size", 768), Key("window", 256))
GIB = 2**30


def recipe_text(answers: Answers) -> str:
    """The recipe, as commented TOML."""
    parts = [Part("", [Key("name", answers.name, "Artifacts are in runs/NAME.")]), *sources(answers)]
    if answers.goal == "pretrain":
        parts += new_model(answers)
    elif answers.goal == "continue":
        parts.append(continued(answers))
    chat = answers.of_kind("chat")
    if chat and answers.goal != "lora":
        parts.append(tuned("sft", answers, chat))
    if answers.goal in ("lora", "sft+lora"):
        parts.append(tuned("lora", answers, chat[-1:] if answers.goal == "sft+lora" else chat))
    parts.append(
        Part(
            "eval",
            [Key("questions", 100)],
            "How many questions of each task checkpoints are asked, at most. Further tasks: llmctl eval --list",
        )
    )
    return toml_text(head(answers), parts)


def head(answers: Answers) -> str:
    gpus = f" --gpus {answers.hardware.ranks}" if answers.hardware.ranks > 1 else ""
    run = f"llmctl run {answers.file}"
    return "\n".join(
        [
            f"{answers.goal}: {GOALS[answers.goal]}. Written by `llmctl init` for {answers.hardware.told}.",
            "",
            f"    llmctl check {answers.file}{gpus}",
            f"    {run} --smoke    every stage in about two minutes",
            f"    {run}{gpus}",
            "",
            "`llmctl explain KEY` tells what a key means, and `llmctl explain TABLE` which others there are.",
        ]
    )


def sources(answers: Answers) -> list[Part]:
    parts = [
        Part("corpus", [Key("heldout_fraction", 0.05)], "This share of every source is never trained on: it measures the model.")
    ]
    for data in answers.data:
        keys = [Key("path", data.path)]
        if data.kind == "chat":
            keys.append(Key("kind", "chat"))
        elif data.text_field != "text":
            keys.append(Key("text_field", data.text_field, "The field of a row that holds the text."))
        parts.append(Part(f"corpus.sources.{data.name}", keys))
    return parts


def new_model(answers: Answers) -> list[Part]:
    size, text = size_for(answers.hardware), answers.of_kind("text")
    tokens, why = budget(size, text)
    return [
        Part("tokenizer", [Key("vocab_size", size.vocabulary)], "A byte-level BPE, trained on the corpus."),
        Part("model", size.shape, size.why),
        Part(
            "pretrain",
            [
                Key("tokens", tokens, why),
                Key("seq_len", size.seq_len, "Tokens in a row."),
                Key("warmup_tokens", max(1, tokens // 50)),
                Key("schedule", "cosine"),
                Key("final_lr_fraction", 0.1),
                Key("mix", shares(text), "Share of the tokens from each source."),
                *sharded(answers),
            ],
            LEFT_OUT_TOO,
        ),
    ]


def size_for(hardware: Hardware) -> Size:
    """A size whose 20 tokens a weight (Chinchilla, arXiv 2203.15556) take hours on the hardware, not weeks."""
    if hardware.memory is None:
        why = "3 to 4 million weights: a CPU takes minutes. Layers 1 to 3 see a window, layer 4 everything."
        return Size(SMALL, 512, 2_000_000, 4096, why)
    name, tokens, gpu = "olmo3_190m", 3_800_000_000, "some hours of one H100"
    if hardware.memory < 40 * GIB:
        name, tokens, gpu = "olmo3_100m", 2_000_000_000, "about a day of a GPU of 24 GB"
    elif hardware.ranks >= 4:
        name, tokens, gpu = "olmo3_1b", 25_000_000_000, "about a day of eight H100"
    return Size([Key("preset", name)], 4096, tokens, 32_768, f"A size whose 20 tokens a weight take {gpu}.")


def budget(size: Size, text: Sequence[Data]) -> tuple[int, str]:
    """Tokens to train on, and why."""
    known = sum(data.bytes or 0 for data in text)
    if known and all(data.bytes is not None for data in text) and known < size.tokens:
        # A token is some four bytes, so that four passes are as many tokens as the text has bytes.
        tokens = max(20 * size.seq_len, known)
        return tokens, "Four passes over your text, more of which teach little (arXiv 2305.16264). More text would be better."
    if size.tokens < 10**8:
        return size.tokens, "What a CPU trains on in minutes; 20 tokens a weight would be some 70 million."
    return size.tokens, "20 tokens a weight."


def continued(answers: Answers) -> Part:
    return Part(
        "midtrain",
        [
            Key("from", answers.base),
            Key("epochs", 1.0, 'Passes over the data; or tokens = "50M".'),
            Key("seq_len", row_length(answers), "Tokens in a row; at most the context that the model was trained for."),
            Key("lr", 5e-5, "Falls to zero. Higher learns more and forgets more."),
            Key("carry_optimizer", False, "A model from outside brings no optimizer moments."),
            Key("mix", shares(answers.of_kind("text")), "Share of the tokens from each source."),
            *sharded(answers),
        ],
        LEFT_OUT,
    )


def tuned(kind: Literal["sft", "lora"], answers: Answers, chat: Sequence[Data]) -> Part:
    """[sft] or [lora]: from the base where no stage comes before it."""
    first = answers.goal == kind or (kind == "sft" and answers.goal == "sft+lora")
    keys = [Key("from", answers.base)] if first else []
    keys += [
        Key("epochs", 2.0, "Passes over the conversations; prompts are masked."),
        Key("seq_len", row_length(answers), "Tokens in a row; longer conversations lose their last turns."),
    ]
    if answers.base is not None:
        keys.append(Key("lr", 2e-5 if kind == "sft" else 2e-4, "A common rate; models below 200M weights take five times it."))
    if kind == "lora":
        keys += [Key("rank", 16, "Of the adapter's matrices; the update is scaled by alpha / rank."), Key("alpha", 32.0)]
    keys.append(Key("mix", shares(chat), "Share of the tokens from each source."))
    left_out = LEFT_OUT if answers.base is not None else LEFT_OUT_TOO
    return Part(kind, [*keys, *sharded(answers)] if kind == "sft" else keys, left_out)


def row_length(answers: Answers) -> int:
    """Tokens of a row: what the hardware takes easily, and at most what the model knows."""
    wanted = 1024 if answers.hardware.memory is None else 4096
    if answers.base is None:
        return size_for(answers.hardware).seq_len
    return min(wanted, answers.context or 2048)


def sharded(answers: Answers) -> list[Key]:
    if answers.hardware.ranks == 1:
        return []
    return [Key("zero_stage", 1, "Optimizer states are shared out over the GPUs; 3 shares out weights, too.")]


def shares(data: Sequence[Data]) -> dict[str, float]:
    """Shares that sum to 1: by size where all sizes are known, so that none is repeated more than another, else equal."""
    sizes = [one.bytes for one in data]
    parts = [size or 1 for size in sizes] if None not in sizes else [1] * len(sizes)
    found = [max(0.001, round(part / sum(parts), 3)) for part in parts]
    largest = found.index(max(found))
    found[largest] = round(found[largest] + 1 - sum(found), 3)
    return {one.name: share for one, share in zip(data, found, strict=True)}
