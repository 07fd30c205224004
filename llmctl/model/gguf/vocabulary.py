"""A tokenizer in llama.cpp's terms.

llama.cpp splits text by code of its own for each tokenizer it knows; the file only names which (`tokenizer.ggml.pre`). A wrong
name gives other tokens without a word, so a name is chosen by what the tokenizer does, or the export is refused.
"""

import json
from dataclasses import dataclass
from typing import Any

from llmctl.errors import UserError

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BY_THREES = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
"""Llama 3's, dolma2's (Olmo 2 and 3), and that of llmctl's own tokenizers."""
BY_DIGIT = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
"""Qwen 2's."""
QWEN_35 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {BY_THREES: "dbrx", BY_DIGIT: "qwen2", QWEN_35: "qwen35"}
KNOWN = "GPT-2's, SmolLM's, Llama 3's (also dolma2's and llmctl's own), Qwen 2's and Qwen 3.5's"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokens: list[str]
    """One for each row of the embedding: rows beyond the tokenizer's have names that no text gives."""
    types: list[int]
    """llama.cpp's: 1 normal, 3 control, 4 added by the user, 5 unused."""
    merges: list[str]
    pre: str
    add_bos: bool
    add_eos: bool

    def write(self, writer: Any, tokenizer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        for add, token in (
            (writer.add_bos_token_id, tokenizer.bos_token_id),
            (writer.add_eos_token_id, tokenizer.eos_token_id),
            (writer.add_pad_token_id, tokenizer.pad_token_id),
            (writer.add_unk_token_id, tokenizer.unk_token_id),
        ):
            if token is not None:
                add(token)
        if isinstance(tokenizer.chat_template, str):
            writer.add_chat_template(tokenizer.chat_template)


def vocabulary_of(tokenizer: Any, rows: int) -> Vocabulary:
    """The vocabulary of a model that embeds `rows` tokens.

    Raises:
        UserError: llama.cpp has no tokenizer of that kind.
    """
    written = json.loads(tokenizer.backend_tokenizer.to_str())
    model = written["model"]
    check_model(model)
    check_normalizer(written["normalizer"])
    pre = split_name(written["pre_tokenizer"], bool(model.get("ignore_merges")))
    tokens, types = [f"[PAD{row}]" for row in range(rows)], [5] * rows
    for token, place in model["vocab"].items():
        tokens[place], types[place] = token, 1
    for added in written["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], 3 if added["special"] else 4
    check_added(written["added_tokens"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    before, after = added_around(tokenizer)
    return Vocabulary(tokens, types, merges, pre, before, after)


def check_model(model: dict[str, Any]) -> None:
    if model["type"] != "BPE" or model.get("byte_fallback"):
        kind = "SentencePiece's BPE" if model["type"] == "BPE" else model["type"]
        raise refused(f"it is of the kind {kind}, and llmctl exports byte-level BPE")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise refused(f"its BPE has {key} = {model[key]!r}")


def check_normalizer(normalizer: dict[str, Any] | None) -> None:
    """NFC alone is let through: Qwen's tokenizers have it, and llama.cpp leaves it out, which changes only decomposed text."""
    parts = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    if others := [part["type"] for part in parts if part["type"] != "NFC"]:
        raise refused(f"it normalises text by {', '.join(others)}, which llama.cpp does not")


def check_added(added: list[dict[str, Any]]) -> None:
    for token in added:
        for key in ("single_word", "lstrip", "rstrip"):
            if token.get(key):
                raise refused(f"its token {token['content']!r} has {key}, which llama.cpp does not know")


def split_name(pre_tokenizer: dict[str, Any] | None, ignore_merges: bool) -> str:
    """llama.cpp's name of a way to split text before BPE.

    Raises:
        UserError: it knows no such way.
    """
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer] if pre_tokenizer else [])
    kinds = [part["type"] for part in parts]
    last = parts[-1] if kinds[-1:] == ["ByteLevel"] and not parts[-1]["add_prefix_space"] else {}
    found = None
    if kinds == ["ByteLevel"] and last.get("use_regex"):
        found = "gpt-2"
    elif kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"] and last.get("use_regex"):
        found = "smollm"
    elif kinds == ["Split", "ByteLevel"] and last.get("use_regex") is False:
        plain = parts[0]["behavior"] == "Isolated" and not parts[0]["invert"]
        found = SPLITS.get(parts[0]["pattern"].get("Regex", "")) if plain else None
    if found == "dbrx" and ignore_merges:
        return "llama-bpe"  # the same split, and whole words that are tokens are not merged together
    if found is None or ignore_merges:
        shown = json.dumps(pre_tokenizer, ensure_ascii=False) + (" with ignore_merges" if ignore_merges else "")
        raise refused(f"it splits text in a way that is none of those of llama.cpp that llmctl knows ({KNOWN}): {shown}")
    return found


def added_around(tokenizer: Any) -> tuple[bool, bool]:
    """Whether the tokenizer itself puts its bos token before a text, and its eos token after it.

    Raises:
        UserError: it puts something else around a text.
    """
    text = "a"
    plain, whole = (tokenizer(text, add_special_tokens=special)["input_ids"] for special in (False, True))
    for before in (False, True):
        for after in (False, True):
            expected = [tokenizer.bos_token_id] * before + plain + [tokenizer.eos_token_id] * after
            if whole == expected:
                return before, after
    raise refused(
        f"it puts more around a text than its bos and eos tokens: {tokenizer.convert_ids_to_tokens(whole)} for {text!r}"
    )


def refused(why: str) -> UserError:
    return UserError(f"this model's tokenizer cannot be exported to GGUF: {why}")
