"""Documents as vectors: hidden states of a layer, pooled over the tokens of each document; packed, without padding."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from llmctl import events
from llmctl.errors import UserError
from llmctl.evals.score import packs
from llmctl.model.loss import base_model, inputs_of
from llmctl.tokens.batch import of_sequences

Pool = Literal["mean", "last"]
TOKENS_PER_PASS = 2048
"""Of short documents. More do not make a CPU faster, and the hidden states leave its cache."""


class _Reached(Exception):
    """The last layer that is asked for is computed: the rest of the model is left out."""


class _Tap:
    """Pools what layers put out, while the model runs over a pack."""

    def __init__(self, lengths: list[int], first: list[int], pool: Pool, last: int | None) -> None:
        ends = np.cumsum(lengths)
        self.spans = [(int(end - length) + skip, int(end)) for end, length, skip in zip(ends, lengths, first, strict=True)]
        self.pool, self.last, self.found = pool, last, dict[int, np.ndarray]()

    def __call__(self, layer: int, hidden: Tensor) -> None:
        """`hidden` [1, N, D]."""
        hidden = hidden[0].float()
        rows = [hidden[end - 1] if self.pool == "last" else hidden[start:end].mean(0) for start, end in self.spans]
        self.found[layer] = torch.stack(rows).cpu().numpy()
        if layer == self.last:
            raise _Reached


def layer_count(model: Any) -> int:
    return int(base_model(model).config.get_text_config().num_hidden_layers)


def sequences_of(tokenizer: Any, texts: Sequence[str], longest: int) -> tuple[list[list[int]], int]:
    """Ids of each text after the token that ends a document, as documents begin in training; and how many were cut to the
    `longest` tokens that the model's context holds. A tokenizer without such a token puts none before them."""
    begin = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    whole = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [(begin + ids)[:longest] for ids in whole], sum(len(begin) + len(ids) > longest for ids in whole)


def features(
    model: Any, sequences: list[list[int]], layers: Sequence[int], pool: Pool, begun: bool, tokens_per_pass: int = TOKENS_PER_PASS
) -> np.ndarray:
    """[documents, layers, D] fp32: the mean over a document's tokens, or its last token, of each of `layers`.

    Layer 0 is the embedding, layer k what block k puts out, and the last one that after the model's last norm. Where the
    documents are `begun` by a token of no text, the mean is without it: its hidden state is many times larger than the others
    (attention sinks, arXiv 2309.17453). `model` attends to packed documents (`use_packed_attention`).

    Raises:
        UserError: a document has no tokens, or the model has no list of blocks that is known.
    """
    blocks = _blocks(model)
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    if empty := [index for index in order if len(sequences[index]) <= begun]:
        raise UserError(f"document {empty[0]} has no tokens")
    found: np.ndarray | None = None
    done = 0
    for pack in packs([sequences[index] for index in order], tokens_per_pass):
        rows = [order[place] for place in pack]
        pooled = _pooled(model, blocks, [sequences[row] for row in rows], layers, pool, int(begun))
        if found is None:
            found = np.empty((len(sequences), len(layers), pooled.shape[-1]), dtype=np.float32)
        found[rows] = pooled
        done += len(rows)
        events.progress("features", done, len(sequences), "documents")
    assert found is not None, "no documents"
    return found


def unusable(found: np.ndarray) -> int | None:
    """The first document with a feature that is no number."""
    wrong = ~np.isfinite(found).all(axis=tuple(range(1, found.ndim)))
    return int(np.argmax(wrong)) if wrong.any() else None


def _blocks(model: Any) -> list[Any]:
    base, count = base_model(model), layer_count(model)
    body = getattr(base, base.base_model_prefix)
    lists = [module for module in body.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count]
    if not lists:
        raise UserError(f"{base.config.model_type}: its blocks are not found, so that no layer can be read")
    return list(lists[0])


@torch.no_grad()
def _pooled(
    model: Any, blocks: list[Any], sequences: list[list[int]], layers: Sequence[int], pool: Pool, skip: int
) -> np.ndarray:
    """[documents, layers, D] of one pack."""
    last = max(layers)
    tap = _Tap([len(s) for s in sequences], [skip] * len(sequences), pool, last if last < len(blocks) else None)
    hooks = []
    for layer in layers:
        if layer == 0:
            hooks.append(blocks[0].register_forward_pre_hook(lambda _, inputs: tap(0, inputs[0])))
        elif layer < len(blocks):
            hooks.append(blocks[layer - 1].register_forward_hook(_reader(tap, layer)))
    base = base_model(model)
    body = getattr(base, base.base_model_prefix)
    batch = of_sequences(sequences).to(next(model.parameters()).device)
    try:
        tap(len(blocks), body(**inputs_of(batch), use_cache=False).last_hidden_state)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return np.stack([tap.found[layer] for layer in layers], axis=1)


def _reader(tap: _Tap, layer: int) -> Any:
    return lambda _, inputs, output: tap(layer, output if isinstance(output, Tensor) else output[0])
