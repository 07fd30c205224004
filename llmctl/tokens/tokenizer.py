"""The tokenizer: byte-level BPE in the format that `AutoTokenizer` loads."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, require_package
from llmctl.interrupts import interruptible
from llmctl.recipe.gguf_header import SPLITS_AS_GPT2, SPLITS_DIGITS, read_header
from llmctl.recipe.strangers import own_code
from llmctl.recipe.tokenizer_schema import Trainer
from llmctl.runs.files import staged_folder
from llmctl.tokens.encoder import Encoder
from llmctl.tokens.named_templates import CHATML

END_OF_TEXT, PAD, TURN_START, TURN_END = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = [END_OF_TEXT, PAD, TURN_START, TURN_END, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]

# Words with their leading space or sign, digits by threes, punctuation with the newlines after it, white space: the class
# of split that GPT-4 and the dolma2 tokenizer use. Indentation stays one token, which is what makes code short.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], vocab_size: int, out: Path, trainer: Trainer = "tokenizers") -> None:
    """Train on `texts` and write a folder that `AutoTokenizer.from_pretrained` loads, chat template included.

    `vocab_size` counts the special tokens, which have the first ids. The same texts in the same order give the same file.

    Raises:
        UserError: there is no text, or `trainer` is not installed.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    if trainer == "rustbpe":
        tokenizer.model = models.BPE(*_trained_by_rustbpe(texts, vocab_size))
        tokenizer.add_special_tokens(SPECIAL_TOKENS)
    else:
        learner = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        interruptible(lambda: tokenizer.train_from_iterator(texts, learner))  # minutes for gigabytes
    if tokenizer.get_vocab_size() <= len(SPECIAL_TOKENS) + 256:
        raise UserError("the tokenizer found nothing to learn: its sources hold no text")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        additional_special_tokens=SPECIAL_TOKENS[2:],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHATML
    with staged_folder(out) as aside:
        fast.save_pretrained(aside)


def _trained_by_rustbpe(texts: Iterable[str], vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges, in the characters that stand for bytes. Merges of equal counts come in another order than by
    `tokenizers`."""
    require_package("rustbpe", 'tokenizer.trainer = "rustbpe"')
    import rustbpe

    learner: Any = rustbpe.Tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    interruptible(lambda: learner.train_from_iterator(iter(texts), vocab_size - len(SPECIAL_TOKENS), pattern=SPLIT))
    ranks = {bytes(token): rank for token, rank in learner.get_mergeable_ranks()}
    shown = byte_characters()
    written = {token: "".join(shown[byte] for byte in token) for token in ranks}
    vocabulary = [*SPECIAL_TOKENS, *sorted(shown.values()), *(written[token] for token in ranks if len(token) > 1)]
    parts = (parts_of(token, ranks) for token in ranks if len(token) > 1)
    return {token: place for place, token in enumerate(vocabulary)}, [(written[left], written[right]) for left, right in parts]


def parts_of(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The two tokens that were merged to this one: what its bytes become by the merges before its own."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        place = pairs.index(min(pairs))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def byte_characters() -> dict[int, str]:
    """The character that stands for each byte in byte-level BPE (Radford et al. 2019): itself where it can be seen, else one
    from U+0100 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + place) for place, byte in enumerate(hidden)}


def load_tokenizer(path_or_name: str) -> Any:
    """The tokenizer of a folder or a hub name.

    Raises:
        UserError: there is none, it asks for code of its own, it is of the slow kind, which cannot tell the characters of
            a token, or a .gguf file's splits text in a way that is not known.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    folder, extra = path_or_name, {}
    if path_or_name.endswith(".gguf"):
        require_package("gguf", f"{path_or_name}: a GGUF file")
        file = Path(path_or_name)
        folder, extra = str(file.parent), {"gguf_file": file.name}
    try:
        if wrong := own_code(get_tokenizer_config(folder), "tokenizer_config.json"):
            raise UserError(f"{path_or_name}: {wrong}")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **extra)
    except (OSError, ValueError) as error:
        raise UserError(f"{path_or_name}: no tokenizer could be loaded: {str(error).splitlines()[0]}") from None
    if not tokenizer.is_fast:
        raise UserError(f"{path_or_name}: its tokenizer has no tokenizer.json (the fast format), which llmctl needs")
    if path_or_name.endswith(".gguf"):
        split_as_named(Path(path_or_name), tokenizer)
    return tokenizer


def split_as_named(file: Path, tokenizer: Any) -> None:
    """Make the tokenizer of a GGUF file split text as the file says. `transformers` takes GPT-2's way for every name that it
    does not know, SmolLM's among them, and so gives other tokens.

    Raises:
        UserError: the file names a way that neither `transformers` nor llmctl knows.
    """
    from tokenizers import pre_tokenizers

    keys, _ = read_header(file)
    name = keys.get("tokenizer.ggml.pre", "default")
    backend = tokenizer.backend_tokenizer
    if keys.get("tokenizer.ggml.model") != "gpt2" or not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return
    if name in SPLITS_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif name not in (*SPLITS_AS_GPT2, "default"):
        raise UserError(
            f"{file}: its tokenizer splits text in a way of the name {name!r}, which transformers does not read from GGUF and "
            "would replace by GPT-2's; start from the model folder that the file was made from"
        )


def compression(tokenizer: Any, texts: list[str]) -> float:
    """UTF-8 bytes per token over `texts`."""
    ids, _ = Encoder(tokenizer)(texts)
    return sum(len(text.encode()) for text in texts) / max(1, len(ids))
