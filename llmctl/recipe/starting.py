"""A recipe to begin with, from a goal, a model, data and hardware: `llmctl init` writes it."""

import shlex
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


GIB, BYTES_OF_TOKEN, FEWEST_STEPS = 2**30, 4, 100
SMALL = Size(
    [Key("hidden_size", 192), Key("layers", 4), Key("heads", 3), Key("ffn_size", 768), Key("window", 256)],
    512,
    2_000_000,
    4096,
    "3 to 4 million weights, of which a CPU trains in minutes. Layers 1 to 3 see a window, layer 4 everything.",
)
SIZES = [
    (memory * GIB, ranks, Size([Key("preset", name)], 4096, tokens, 32_768, f"20 tokens a weight take {time}."))
    for memory, ranks, name, tokens, time in (
        (40, 4, "olmo3_1b", 25_000_000_000, "about a day of eight H100"),
        (40, 1, "olmo3_190m", 3_800_000_000, "some hours of one H100"),
        (0, 1, "olmo3_100m", 2_000_000_000, "about a day of a GPU of 24 GB"),
        (0, 1, "olmo3_30m", 600_000_000, "an hour or two of a GPU of 24 GB"),
    )
]
"""New models by the memory of a GPU and the GPUs that they are for, the largest first."""


def starter_text(answers: Answers) -> str:
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
    run = f"llmctl run {shlex.quote(str(answers.file))}"
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
    text = answers.of_kind("text")
    size = size_for(answers)
    tokens, why = budget(size, text, answers.hardware.ranks)
    return [
        Part("tokenizer", [Key("vocab_size", size.vocabulary)], "A byte-level BPE, trained on the corpus."),
        Part("model", size.shape, size.why),
        stage_part(
            "pretrain",
            [
                Key("tokens", tokens, why),
                Key("seq_len", size.seq_len, "Tokens in a row."),
                *batch(answers, tokens, size.seq_len),
                Key("warmup_tokens", tokens // 50),
                Key("schedule", "cosine"),
                Key("final_lr_fraction", 0.1),
                Key("mix", shares(text), "Share of the tokens from each source."),
                *sharded(answers),
            ],
        ),
    ]


def stage_part(name: str, keys: Sequence[Key]) -> Part:
    """A stage that trains, with what it leaves out said above it."""
    by_ladder = [key for key in ("lr", "batch_tokens") if key not in [written.name for written in keys]]
    told = f"; {' and '.join(by_ladder)}, by Olmo 3's model ladder" if by_ladder else ""
    return Part(name, keys, f"Left out: micro_batch, the largest that fits{told}.")


def size_for(answers: Answers) -> Size:
    """The largest model whose 20 tokens a weight (Chinchilla, arXiv 2203.15556) take the hardware a day at most, and of which
    the text, as far as it is known, has a twentieth."""
    known = known_bytes(answers.of_kind("text"))
    for memory, ranks, size in SIZES:
        enough = known is None or known / BYTES_OF_TOKEN * 20 >= size.tokens
        if (
            enough
            and answers.hardware.memory is not None
            and answers.hardware.memory >= memory
            and answers.hardware.ranks >= ranks
        ):
            return size
    return SMALL


def known_bytes(data: Sequence[Data]) -> int | None:
    """Bytes of all the data; None where one is not known."""
    sizes = [one.bytes for one in data]
    return None if None in sizes else sum(size or 0 for size in sizes)


def budget(size: Size, text: Sequence[Data], ranks: int) -> tuple[int, str]:
    """Tokens to train on, and why."""
    known = known_bytes(text)
    if known is not None and known / BYTES_OF_TOKEN * 4 < size.tokens:
        tokens = max(max(20, ranks) * size.seq_len, round(known / BYTES_OF_TOKEN * 4))
        return tokens, "Four passes over your text, more of which teach little (arXiv 2305.16264). More text would be better."
    if size is SMALL:
        return size.tokens, "What a CPU trains on in minutes; 20 tokens a weight would be some 70 million."
    return size.tokens, "20 tokens a weight."


def batch(answers: Answers, tokens: int | None, seq_len: int) -> list[Key]:
    """The batch, where the ladder's, a power of two of rows, could not be shared by the ranks. `tokens`: None: very many."""
    ranks = answers.hardware.ranks
    rows = None if tokens is None else max(1, tokens // (FEWEST_STEPS * seq_len))
    if ranks == 1 or (ranks.bit_count() == 1 and (rows is None or rows >= 2 * ranks)):
        return []
    each = 1 if rows is None else max(1, rows // ranks)
    return [Key("batch_tokens", ranks * each * seq_len, f"{each} row{'s' if each > 1 else ''} of each GPU.")]


def continued(answers: Answers) -> Part:
    text, length = answers.of_kind("text"), row_length(answers)
    return stage_part(
        "midtrain",
        [
            Key("from", answers.base),
            Key("epochs", 1.0, 'Passes over the data; or tokens = "50M".'),
            Key("seq_len", length, "Tokens in a row; at most the context that the model was trained for."),
            *batch(answers, passes(text, 1), length),
            Key("lr", 5e-5, "Falls to zero. Higher learns more and forgets more."),
            Key("carry_optimizer", False, "A model from outside brings no optimizer moments."),
            Key("mix", shares(text), "Share of the tokens from each source."),
            *sharded(answers),
        ],
    )


def tuned(kind: Literal["sft", "lora"], answers: Answers, chat: Sequence[Data]) -> Part:
    """[sft] or [lora]: from the base where no stage comes before it."""
    first = answers.goal == kind or (kind == "sft" and answers.goal == "sft+lora")
    length = row_length(answers)
    keys = [Key("from", answers.base)] if first else []
    keys += [
        Key("epochs", 2.0, "Passes over the conversations; prompts are masked."),
        Key("seq_len", length, "Tokens in a row; longer conversations lose their last turns."),
        *batch(answers, passes(chat, 2), length),
    ]
    if answers.base is not None:
        keys.append(Key("lr", 2e-5 if kind == "sft" else 2e-4, "A common rate; models below 200M weights take five times it."))
    if kind == "lora":
        keys += [Key("rank", 16, "Of the adapter's matrices; the update is scaled by alpha / rank."), Key("alpha", 32.0)]
    keys.append(Key("mix", shares(chat), "Share of the tokens from each source."))
    return stage_part(kind, [*keys, *sharded(answers)] if kind == "sft" else keys)


def passes(data: Sequence[Data], count: int) -> int | None:
    """Tokens of so many passes over the data."""
    known = known_bytes(data)
    return None if known is None else count * known // BYTES_OF_TOKEN


def row_length(answers: Answers) -> int:
    """Tokens of a row: what the hardware takes easily, and at most what the model knows."""
    wanted = 1024 if answers.hardware.memory is None else 4096
    if answers.base is None:
        return size_for(answers).seq_len
    return min(wanted, answers.context or 2048)


def sharded(answers: Answers) -> list[Key]:
    if answers.hardware.ranks == 1:
        return []
    return [Key("zero_stage", 1, "Optimizer states are shared out over the GPUs; 3 shares out weights, too.")]


def shares(data: Sequence[Data]) -> dict[str, float]:
    """Shares that sum to 1: by size where all sizes are known, so that none is repeated more than another, else equal."""
    parts = [1 if known_bytes(data) is None else one.bytes or 1 for one in data]
    found = [max(0.001, round(part / sum(parts), 3)) for part in parts]
    largest = found.index(max(found))
    found[largest] = round(found[largest] + 1 - sum(found), 3)
    return {one.name: share for one, share in zip(data, found, strict=True)}
