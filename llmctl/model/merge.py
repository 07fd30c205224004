"""Adapters merged into the weights of their base, and the merged folder held against base and adapters as it was written."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmctl import events
from llmctl.errors import StageFailed, UserError
from llmctl.model.adapter_files import AdapterFile, check_adapter, check_sum, with_adapters
from llmctl.model.average import Weights
from llmctl.model.load import load_config, load_model, save_model
from llmctl.model.lora import merge
from llmctl.runs.files import staged_folder
from llmctl.tokens.tokenizer import load_tokenizer

PROMPTS = (
    "The library opened in 1952 and has lent out more than two million books since then.",
    "def mean(values):\n    return sum(values) / len(values)\n",
    "Q: What is 17 times 23?\nA: 17 times 20 is 340, and 17 times 3 is 51, which makes 391.",
    "Ein Zug fährt um 8:15 Uhr ab und kommt um 11:40 Uhr an. 東京は日本の首都です。",
    '{"name": "pump", "pressure": [1.5, 2.25], "open": true}',
)
"""Text of several kinds, so that a fault in any part of the vocabulary's weights has a chance to show."""

COMPARED = 64
"""Positions of a prompt whose logits are held against each other, its last ones, which see all before them: 26 MB of a vocabulary
of 100,000."""
TOLERANCE, SHARE = 1e-3, 1e-3
"""What a merge in fp32 may be off: rounding over the depth of the model, which grows with what the adapter does (SmolLM2-135M
whose logits moved by 24 was off by 6.6e-4). A wrong merge is off by a large part of that."""
ROUNDINGS = 4
"""What a merge in 16 bits may be off, in largest differences that rounding makes to the base: they are maxima of chance."""
OFF_GRID = 2**-7
"""Weights are raised by up to this share, at random, off the numbers of a 16-bit type: rounding a base that was saved in it would
do nothing otherwise."""

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}  # of safetensors


@dataclass(frozen=True, slots=True)
class Comparison:
    """Largest absolute differences of logits on the same prompts."""

    off: float
    """Between base with adapter and the merged model."""
    moved: float
    """Between base with adapter and base."""
    allowed: float

    @property
    def alike(self) -> bool:
        return self.off <= self.allowed

    def told(self) -> str:
        nothing = " (it does nothing)" if self.moved == 0 else ""
        return (
            f"largest logit difference between adapter and merged model {self.off:.1e} (at most {self.allowed:.1e}); "
            f"the adapter itself moves the base's logits by up to {self.moved:.1e}{nothing}"
        )

    def check(self, what: str) -> None:
        """Raises:
        StageFailed: the merged model is off by more than is allowed.
        """
        if not self.alike:
            raise StageFailed(
                f"{what} is not base and adapter: logits differ by {self.off:.2e} (at most {self.allowed:.1e} expected), "
                f"where the adapter itself moves them by {self.moved:.2e}; nothing is left of it. --tolerance allows more"
            )


def prompts_for(tokenizer: Any) -> list[Tensor]:
    """Token ids [1, T] of each prompt."""
    found = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROMPTS)
    return [torch.tensor([ids]) for ids in found if ids]


@torch.no_grad()
def logits_of(model: Any, prompts: list[Tensor]) -> list[Tensor]:
    """fp32 of each prompt [1, T], of its last positions: [1, min(T, COMPARED), V]. A token that the model does not know becomes
    the last one that it does."""
    last = model.get_input_embeddings().weight.shape[0] - 1
    model.eval()
    return [model(input_ids=tokens.clamp(max=last), logits_to_keep=COMPARED).logits.float() for tokens in prompts]


def largest_difference(ones: list[Tensor], others: list[Tensor]) -> float:
    """Over the rows of the vocabulary that both have. Infinite where a logit is no number."""
    differences = []
    for one, other in zip(ones, others, strict=True):
        rows = min(one.shape[-1], other.shape[-1])
        differences.append(float((one[..., :rows] - other[..., :rows]).abs().max()))
    return max(differences) if all(difference == difference for difference in differences) else float("inf")


def compare(base: str, adapter: Path, merged: Path, prompts: list[Tensor]) -> Comparison:
    """Hold a base with an adapter against a merged model, both loaded as a user would.

    Raises:
        UserError: the adapter does not fit.
    """
    file, model = check_adapter(adapter, base), load_model(base)
    alone = logits_of(model, prompts)
    beside = logits_of(with_adapters(model, [file], [1.0]), prompts)
    off, moved = largest_difference(beside, logits_of(load_model(str(merged)), prompts)), largest_difference(beside, alone)
    return Comparison(off, moved, rounding_in_fp32(moved))


def rounding_in_fp32(moved: float) -> float:
    """The difference that a merge in fp32 may have where the adapter moves logits by `moved`."""
    return max(TOLERANCE, SHARE * moved)


def types_of(base: str, asked: str) -> tuple[str, dict[str, str]]:
    """The type that most weights are written in, and those of single tensors by name. `asked`: fp32, bf16, fp16, or keep, as the
    base's files have them.

    Raises:
        UserError: they have another type than those, and which one to write is not said.
    """
    if asked != "keep":
        return asked, {}
    if base.endswith(".gguf"):
        events.say(f"{base} has packed weights; the merged ones are written in fp32")
        return "fp32", {}
    if getattr(load_config(base), "quantization_config", None) is not None:
        raise UserError(f"{base}: its weights are packed (quantised); say with --dtype what the merged ones are written in")
    files = Weights(Path(base))
    kinds = {name: kind for name in files.names if (kind := NAMES.get(files.type_of(name))) is not None}
    if not kinds:
        raise UserError(f"{base}: its weights are in none of {', '.join(TYPES)}; say with --dtype what to write")
    return Counter(kinds.values()).most_common(1)[0][0], kinds


def tokenizer_for(base: str, adapters: list[AdapterFile]) -> Any:
    """What text and chat templates the merged model is for: the tokenizer of the last adapter that has one, or else the base's.

    Raises:
        UserError: the adapters have tokenizers of different vocabularies.
    """
    own = [adapter.folder for adapter in adapters if adapter.has_tokenizer]
    if not own:
        return load_tokenizer(base)
    tokenizer = load_tokenizer(str(own[-1]))
    for folder in own[:-1]:
        if load_tokenizer(str(folder)).get_vocab() != tokenizer.get_vocab():
            raise UserError(
                f"{folder} and {own[-1]} have tokenizers of different vocabularies; no model can read by both of them"
            )
    if not tokenizer.chat_template:
        tokenizer.chat_template = load_tokenizer(base).chat_template
    if len(adapters) > 1:
        events.say(f"the tokenizer and its chat template are those of {own[-1]}")
    return tokenizer


def write_merged(
    base: str,
    adapters: list[Path],
    weights: list[float],
    out: Path,
    dtype: str = "keep",
    tolerance: float | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Comparison:
    """Write `out`, the model of `base` (folder or GGUF file) with the adapters, each times its weight, merged in fp32 and rounded
    once. `finish` adds to the folder before it gets its name. Whole and alike in what it computes, or not at all.

    Raises:
        UserError: an adapter does not fit.
        StageFailed: the merged model computes something else than base and adapters.
    """
    kind, kinds = types_of(base, dtype)
    files = [check_adapter(folder, base) for folder in adapters]
    check_sum(files, weights)
    tokenizer = tokenizer_for(base, files)
    prompts = prompts_for(tokenizer)
    model = load_model(base)
    alone = logits_of(model, prompts)
    adapted = with_adapters(model, files, weights)
    del model
    beside = logits_of(adapted, prompts)
    moved = largest_difference(beside, alone)
    merged = merge(adapted)
    del adapted
    allowed = rounding_in_fp32(moved) if tolerance is None else tolerance
    Comparison(largest_difference(beside, logits_of(merged, prompts)), moved, allowed).check("the model merged in fp32")
    round_weights(merged, kind, kinds)
    with staged_folder(out) as aside:
        save_model(merged, tokenizer, aside)
        del merged
        off = largest_difference(beside, logits_of(load_model(str(aside)), prompts))
        if tolerance is None:
            allowed += ROUNDINGS * rounding_of(base, kind, kinds, prompts)
        found = Comparison(off, moved, allowed)
        found.check(f"the model written in {kind}")
        if finish is not None:
            finish(aside)
    return found


def round_weights(model: Any, kind: str, kinds: dict[str, str]) -> None:
    """Turn the weights into `kind`, or where `kinds` names them into that."""
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(TYPES[kinds.get(name, kind)])
    model.config.dtype = TYPES[kind]


def rounding_of(base: str, kind: str, kinds: dict[str, str], prompts: list[Tensor]) -> float:
    """The largest difference that rounding the base's weights to these types makes to its logits."""
    if {kind, *kinds.values()} == {"fp32"}:
        return 0.0
    model = load_model(base)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + OFF_GRID * torch.rand(parameter.shape, generator=generator))
    before = logits_of(model, prompts)
    round_weights(model, kind, kinds)
    return largest_difference(before, logits_of(model.float(), prompts))
