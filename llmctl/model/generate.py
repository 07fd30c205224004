"""Text from a model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from llmctl.model.attention import attention_implementation
from llmctl.tokens.template import end_of_turn_ids

BATCH = 50


@dataclass(frozen=True, slots=True)
class Generation:
    text: str
    tokens: int
    ended: bool
    """Whether the model ended it with a stop token, and not the limit."""


@torch.no_grad()
def generate(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int, stop_ids: list[int]) -> list[Generation]:
    """Greedy continuations of `prompts`, in batches padded on the left."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    found: list[Generation] = []
    for start in range(0, len(prompts), BATCH):
        encoded = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in prompts[start : start + BATCH]]
        width = max(len(ids) for ids in encoded)
        tokens = torch.tensor([[pad] * (width - len(ids)) + ids for ids in encoded], device=model.device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded], device=model.device)
        with attention_implementation(model, "sdpa"):
            out = model.generate(
                input_ids=tokens, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False,
                eos_token_id=stop_ids, pad_token_id=pad, use_cache=True,
            )  # fmt: skip
        for row in out[:, width:].tolist():
            end = next((index for index, token in enumerate(row) if token in stop_ids), None)
            kept = row if end is None else row[:end]
            found.append(Generation(tokenizer.decode(kept), len(kept), end is not None))
    return found


@torch.no_grad()
def stream(
    model: Any, tokenizer: Any, prompt: str, max_new_tokens: int, temperature: float, top_p: float, seed: int
) -> Iterator[str]:
    """Pieces of the continuation of `prompt` as they come. `temperature` 0 takes the likeliest token."""
    generator = torch.Generator(model.device).manual_seed(seed)
    stops = set(end_of_turn_ids(tokenizer)) if tokenizer.chat_template else {tokenizer.eos_token_id}
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
    tokens, cache, shown, new = torch.tensor([ids], device=model.device), None, "", []
    for _ in range(max_new_tokens):
        with attention_implementation(model, "sdpa"):
            out = model(input_ids=tokens, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        token = choose(out.logits[0, -1].float(), temperature, top_p, generator)
        if token in stops:
            return
        new.append(token)
        text = tokenizer.decode(new)
        if not text.endswith("\ufffd"):  # a character whose bytes are not all there yet
            yield text[len(shown) :]
            shown = text
        tokens = torch.tensor([[token]], device=model.device)


def choose(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """A token from `logits` [V]: the likeliest, or one of the smallest set that holds `top_p` of the probability."""
    if temperature == 0:
        return int(logits.argmax())
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True)
    outside = probabilities.cumsum(-1) - probabilities >= top_p
    probabilities = probabilities.masked_fill(outside, 0.0)
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])
