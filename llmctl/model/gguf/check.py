"""Whether llama.cpp reads a file as it was meant: the same tokens of the same texts, and the same likeliest next tokens."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from llmctl import events
from llmctl.errors import StageFailed, require_package
from llmctl.model.attention import attention_implementation
from llmctl.model.gguf.architecture import window_of
from llmctl.tokens.samples import SAMPLES

NEW_TOKENS = 32
SHORT, LONGEST = 64, 2048  # tokens of a prompt
ODD_TEXTS = (
    "x=1;\n\n\tif x:\r\n    return  12345.678  # it's 50%\n",
    "👩‍🚀 naïve Ωmega​ 漢字かな ３４",
    "  \n\n  ",
    "I'LL DON'T they've",
)
TIES = {"f32": 1e-3, "f16": 0.02, "bf16": 0.15, "q8_0": 0.5}
"""Nats that a token may be less likely than the likeliest and still be taken for as likely: what rounding to the type moves."""


class LlamaCpp:
    """A GGUF file opened by llama.cpp (the package xllamacpp), on the CPU."""

    def __init__(self, file: Path, context: int) -> None:
        require_package("xllamacpp", "opening a GGUF file by llama.cpp")
        from importlib import import_module

        xllamacpp: Any = import_module("xllamacpp")  # without types
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx, settings.n_parallel = context, 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.verbosity, settings.warmup, settings.n_gpu_layers = -1, False, 0
        self._server: Any = xllamacpp.Server(settings)

    def tokens_of(self, text: str) -> list[int]:
        """Ids of a text, with what goes around it; special tokens inside it are read as such."""
        return self._ask("tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """Up to `count` likeliest tokens after `prompt`; the last one ends the text where there are fewer.

        Raises:
            StageFailed: llama.cpp gives none.
        """
        asked = {"prompt": prompt, "n_predict": count, "temperature": 0, "return_tokens": True, "cache_prompt": False}
        tokens = self._ask("completion", asked)["tokens"]
        if not tokens:
            raise StageFailed(f"llama.cpp gives no token after a prompt of {len(prompt)}")
        return tokens

    def _ask(self, what: str, asked: dict[str, Any]) -> dict[str, Any]:
        """By the server that the package runs on this machine: its own calls leave out tokens that end inside a character."""
        request = urllib.request.Request(
            f"{self._server.listening_address}/{what}", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise StageFailed(f"llama.cpp answers {what} with {error.code}: {error.read().decode()[:500]}") from None


@dataclass(slots=True)
class Agreement:
    texts: int = 0
    split_alike: int = 0
    split_wrong: str | None = None
    """The first text that llama.cpp splits in another way."""
    next_tokens: int = 0
    equal: int = 0
    longest: int = 0
    """Tokens of the longest prompt."""
    gaps: list[float] = field(default_factory=list)
    """Of each next token that differs: how much less likely llama.cpp's is in the model's own eyes, in nats."""

    def right(self, kind: str) -> bool:
        return self.split_wrong is None and all(gap <= TIES[kind] for gap in self.gaps)

    def __str__(self) -> str:
        split = f"{self.split_alike} of {self.texts} texts split alike"
        ties = f", the others up to {max(self.gaps):.2g} nats less likely" if self.gaps else ""
        return (
            f"{split}; {self.equal} of {self.next_tokens} likeliest next tokens equal{ties} (prompts up to {self.longest} tokens)"
        )


def compare(model: Any, tokenizer: Any, file: Path) -> Agreement:
    """What llama.cpp makes of `file` beside what `model` (fp32, on the CPU) does. Texts and prompts are fixed."""
    prompts = [*prompts_of(model.config, tokenizer)]
    found = Agreement(longest=max(map(len, prompts)))
    opened = LlamaCpp(file, found.longest + NEW_TOKENS + 8)
    compare_texts(opened, tokenizer, found)
    for done, prompt in enumerate(prompts, 1):
        compare_continuation(opened, model, tokenizer, prompt, found)
        events.progress("comparing with llama.cpp", done, len(prompts), "prompts")
    return found


def compare_texts(opened: LlamaCpp, tokenizer: Any, found: Agreement) -> None:
    special = [token.content for token in tokenizer.added_tokens_decoder.values()]
    mixed = "".join(f"{token}word {place}" for place, token in enumerate(special[:16]))
    for text in [*SAMPLES.values(), *ODD_TEXTS, mixed]:
        ours = tokenizer(text)["input_ids"]
        found.texts += 1
        if opened.tokens_of(text) == ours:
            found.split_alike += 1
        elif found.split_wrong is None:
            found.split_wrong = text


def prompts_of(config: Any, tokenizer: Any) -> list[list[int]]:
    """Beginnings of the sample texts, and one prompt that is longer than a window and than the context before its extension."""
    texts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in SAMPLES.values()]
    scaled = [entry.get("original_max_position_embeddings") or 0 for entry in entries_of(config)]
    room = config.max_position_embeddings - NEW_TOKENS
    length = min(max([window_of(config) or 0, *scaled, SHORT]) + 2 * SHORT, LONGEST, room)
    joined = [token for ids in texts for token in ids]
    while len(joined) < length:
        joined += joined
    return [*(ids[: min(SHORT, room)] for ids in texts), joined[:length]]


def entries_of(config: Any) -> list[dict[str, Any]]:
    parameters = config.rope_parameters
    nested = [entry for entry in parameters.values() if isinstance(entry, dict)]
    return nested or [parameters]


def compare_continuation(opened: LlamaCpp, model: Any, tokenizer: Any, prompt: list[int], found: Agreement) -> None:
    """Each of the model's likeliest tokens against llama.cpp's, given the same tokens before it."""
    ending = {place for place, token in tokenizer.added_tokens_decoder.items() if token.special}
    tokens, logits = continuation(model, prompt, ending)
    found.next_tokens += len(tokens)
    place = 0
    while place < len(tokens):
        theirs = opened.greedy(prompt + tokens[:place], len(tokens) - place)
        alike = next((index for index, token in enumerate(theirs) if token != tokens[place + index]), len(theirs))
        found.equal += alike
        place += alike
        if alike < len(theirs):
            scores = logits[place].log_softmax(-1)
            found.gaps.append(float(scores.max() - scores[theirs[alike]]))
            place += 1


@torch.no_grad()
def continuation(model: Any, prompt: list[int], ending: set[int]) -> tuple[list[int], list[torch.Tensor]]:
    """The likeliest tokens after `prompt`, up to the first of `ending`, and the logits [V] that each was chosen by."""
    tokens, logits, cache = [], [], None
    given = torch.tensor([prompt])
    with attention_implementation(model, "sdpa"):
        while len(tokens) < NEW_TOKENS and not (tokens and tokens[-1] in ending):
            out = model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            logits.append(out.logits[0, -1].float())
            tokens.append(int(logits[-1].argmax()))
            given = torch.tensor([tokens[-1:]])
    return tokens, logits
