"""Text from a model."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl import events
from llmctl.model.attention import attention_implementation
from llmctl.suites.task import Sampling
from llmctl.tokens.template import end_of_turn_ids

TOKENS = 2**15
"""Tokens of a batch, answers at their longest: what bounds its cache of keys and values."""


@dataclass(frozen=True, slots=True)
class Generation:
    text: str
    tokens: int
    ended: bool
    """Whether the model ended it with a stop token or a stop text, and not the limit."""
    finite: bool = True
    """Whether all logits that it comes from are numbers."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer that is to be written."""

    prompt: list[int]
    place: int
    """Among all answers."""
    noise: Tensor | None
    """Of each token a number between 0 and 1 [T], that it is drawn by; None: the likeliest is taken."""


def generate(model: Any, tokenizer: Any, prompts: list[str], max_new_tokens: int, stop_ids: list[int]) -> list[Generation]:
    """Greedy continuations of `prompts`."""
    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    found = generate_samples(model, tokenizer, encoded, Sampling(max_new_tokens, stop=()), stop_ids)
    return [one for (one,) in found]


@torch.no_grad()
def generate_samples(
    model: Any, tokenizer: Any, prompts: list[list[int]], sampling: Sampling, stop_ids: Sequence[int], *,
    seed: int = 1, keys: Sequence[str] = (), task: str = "", tokens: int = TOKENS,
) -> list[list[Generation]]:  # fmt: skip
    """`sampling.samples` continuations of each of `prompts` (token ids, none empty), in batches of like length.

    A token is drawn by a number that comes from `seed`, the prompt's key (left out: its place in the list), the sample's number
    and the token's place: the same in every batch, for every model and on every device. Two batches of a prompt still differ
    where rounding moves a probability across that number, which is rare in fp32 and less so in bf16.

    `task` names the work for the reader of its progress; without a name it is not told.
    """
    drawn = sampling.samples if sampling.temperature else 1
    names = keys or [str(number) for number in range(len(prompts))]
    rows = [
        Row(prompt, number * drawn + sample, noise(f"{seed}/{name}/{sample}", sampling) if sampling.temperature else None)
        for number, (prompt, name) in enumerate(zip(prompts, names, strict=True))
        for sample in range(drawn)
    ]
    found: dict[int, Generation] = {}
    for batch in batches(rows, sampling.max_tokens, tokens):
        written = generate_batch(model, tokenizer, batch, sampling, list(stop_ids))
        found |= {row.place: generation for row, generation in zip(batch, written, strict=True)}
        if task:
            events.progress(task, len(found), len(rows), "answers")
    repeated = sampling.samples // drawn
    return [[found[number * drawn + sample] for sample in range(drawn)] * repeated for number in range(len(prompts))]


def noise(name: str, sampling: Sampling) -> Tensor:
    """Numbers between 0 and 1 [T] that depend on nothing but a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    return torch.rand(sampling.max_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batches(rows: list[Row], max_tokens: int, tokens: int) -> list[list[Row]]:
    """The longest prompts first, so that what does not fit into memory is known at the start."""
    found: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -len(row.prompt)):
        if found and (len(found[-1]) + 1) * (len(found[-1][0].prompt) + max_tokens) <= tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def generate_batch(model: Any, tokenizer: Any, rows: list[Row], sampling: Sampling, stop_ids: list[int]) -> list[Generation]:
    """Continuations of prompts that are padded on the left."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    width = len(rows[0].prompt)
    tokens = torch.tensor([[pad] * (width - len(row.prompt)) + row.prompt for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=model.device)
    draws = [row.noise for row in rows if row.noise is not None]
    drawing = [Draw(torch.stack(draws).to(model.device), width, sampling)] if draws else []
    watch = Watch(len(rows), model.device)
    stopping = [StopTexts(tokenizer, sampling.stop, width, stop_ids)] if sampling.stop else []
    with attention_implementation(model, "sdpa"):
        out = model.generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=sampling.max_tokens, do_sample=False, eos_token_id=stop_ids,
            pad_token_id=pad, use_cache=True, logits_processor=[watch, *drawing], stopping_criteria=stopping,
            repetition_penalty=1.0,  # or that of the checkpoint's generation_config.json
        )  # fmt: skip
    written = zip(out[:, width:].tolist(), watch.finite.tolist(), strict=True)
    return [generation_of(tokenizer, new, stop_ids, sampling.stop, finite) for new, finite in written]


def generation_of(tokenizer: Any, new: list[int], stop_ids: list[int], stops: Sequence[str], finite: bool) -> Generation:
    """What was written before the first stop token and the first stop text."""
    end = next((index for index, token in enumerate(new) if token in stop_ids), None)
    kept = new[:end]
    text = tokenizer.decode(kept)
    at = min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
    return Generation(text[:at], len(kept), end is not None or at is not None, finite)


class Watch:
    """A logits processor that changes nothing: whether each row's logits were numbers so far."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.finite = torch.ones(rows, dtype=torch.bool, device=device)

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """scores [B, V]; a token that may not come has minus infinity"""
        self.finite &= scores.amax(-1).isfinite()
        return scores


class Draw:
    """A logits processor: the token that a number of each row falls on is the likeliest afterwards."""

    def __init__(self, draws: Tensor, width: int, sampling: Sampling) -> None:
        self.draws, self.width, self.sampling = draws, width, sampling

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        """tokens [B, T], scores [B, V]"""
        chances, order = nucleus(scores, self.sampling.temperature, self.sampling.top_p)
        upto = chances.double().cumsum(-1)
        number = self.draws[:, tokens.shape[1] - self.width, None] * upto[:, -1:]
        place = torch.searchsorted(upto, number, right=True)
        token = order.gather(1, place.clamp(max=order.shape[1] - 1))
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


class StopTexts:
    """A stopping criterion: rows that hold one of some texts are done."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], width: int, stop_ids: list[int]) -> None:
        self.tokenizer, self.stops, self.width, self.stop_ids = tokenizer, stops, width, stop_ids
        self.tail = max(len(stop.encode()) for stop in stops) + 4
        """Tokens at the end that hold a text that the last token completed: a byte each, and what a tokenizer trims."""
        self.done: set[int] = set()

    def __call__(self, tokens: Tensor, scores: Any, **_: Any) -> Tensor:
        """tokens [B, T] -> [B] bool"""
        last = tokens[:, max(self.width, tokens.shape[1] - self.tail) :].tolist()
        for row, tail in enumerate(last):
            if row in self.done:
                continue
            if tail[-1] in self.stop_ids or (self._in(tail) and self._in(tokens[row, self.width :].tolist())):
                self.done.add(row)
        return torch.tensor([row in self.done for row in range(len(last))], device=tokens.device)

    def _in(self, new: list[int]) -> bool:
        text = self.tokenizer.decode(new)
        return any(stop in text for stop in self.stops)


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


def choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """A token from `logits` [V]: the likeliest, or one of the smallest set that holds `top_p` of the probability."""
    if temperature == 0:
        return int(logits.argmax())
    chances, order = nucleus(logits, temperature, top_p)
    return int(order[torch.multinomial(chances, 1, generator=generator)])


def nucleus(logits: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """From logits [..., V] the probabilities, falling, with 0 outside the smallest set that holds `top_p` of them (Holtzman et
    al. 2020, arXiv 1904.09751), and the tokens that they belong to."""
    chances, order = (logits.float() / temperature).softmax(-1).sort(descending=True, stable=True)
    outside = chances.cumsum(-1) - chances >= top_p
    return chances.masked_fill(outside, 0.0), order
