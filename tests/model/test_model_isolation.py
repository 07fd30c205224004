"""No document sees another, by whichever way attention goes: not in what comes out of it, and not in what goes back.

On a CPU that is exact, since documents never meet in one sum; on a GPU, where a kernel may add in another order, to rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_shards
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmctl.model.attention import use_packed_attention
from llmctl.model.build import ModelShape, build_model
from llmctl.model.loss import causal_lm_loss, hidden_states, use_linear_cross_entropy
from llmctl.tokens.batch import Batch, collate
from llmctl.tokens.rows import IGNORED, ConcatRows, Row
from llmctl_kernels.attention import documents

VOCABULARY, WINDOW = 50, 8
SHAPE = ModelShape(vocab_size=VOCABULARY, hidden_size=32, layers=2, heads=4, kv_heads=2, head_size=8, ffn_size=64,
                   window=WINDOW, max_length=4096)  # fmt: skip

CPU_WAYS = {
    "fp32": (torch.float32, documents.SHORT),
    "bf16 by two products": (torch.bfloat16, documents.SHORT),
    "bf16 fused": (torch.bfloat16, 0),  # as documents of more than SHORT tokens go
}


@lru_cache
def model_on(device: str) -> Any:
    model = build_model(SHAPE, seed=1).to(device).eval()
    use_packed_attention(model)
    use_linear_cross_entropy(model)
    return model


@contextmanager
def way(kind: torch.dtype, short: int, device: str = "cpu") -> Iterator[None]:
    """Products in `kind`, and only documents of up to `short` tokens by two products."""
    before, documents.SHORT = documents.SHORT, short
    try:
        with torch.autocast(device, kind, enabled=kind != torch.float32):
            yield
    finally:
        documents.SHORT = before


def some_rows(lengths: list[list[int]]) -> list[Row]:
    """A row of documents of these lengths for each list, every token with a label, so that every one sends a gradient back."""
    random = np.random.default_rng(sum(map(len, lengths)))
    sizes = [sum(of_row) for of_row in lengths]
    ids = [random.integers(0, VOCABULARY, (2, size)) for size in sizes]
    return [Row(tokens, labels, of_row) for (tokens, labels), of_row in zip(ids, lengths, strict=True)]


def changed(rows: list[Row], document: int) -> tuple[list[Row], Tensor]:
    """The rows with every token of one of their documents another, and where those are: [N] bool."""
    ends = np.cumsum([length for row in rows for length in row.lengths])
    inside = np.zeros(ends[-1], dtype=bool)
    inside[ends[document - 1] if document else 0 : ends[document]] = True
    parts = np.split(inside, np.cumsum([len(row.tokens) for row in rows])[:-1])
    tokens = [np.where(part, (row.tokens + 1) % VOCABULARY, row.tokens) for row, part in zip(rows, parts, strict=True)]
    others = [Row(ids, row.labels, row.lengths) for ids, row in zip(tokens, rows, strict=True)]
    return others, torch.from_numpy(inside)


def logits(model: Any, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model.lm_head(hidden_states(model, batch))[0]


def embedding_gradients(model: Any, batch: Batch, left_out: Tensor) -> Tensor:
    """[N, D]: of the loss outside `left_out`, by the embedding of every token."""
    kept = []
    hook = model.model.embed_tokens.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        labels = batch.labels.masked_fill(left_out.to(batch.labels.device), IGNORED)
        total, _ = causal_lm_loss(model, Batch(batch.tokens, labels, batch.positions, batch.cu_seqlens, batch.lengths))
    finally:
        hook.remove()
    (gradient,) = torch.autograd.grad(total, kept)
    return gradient[0]


def assert_isolated(rows: list[Row], document: int, tolerance: float = 0.0, device: str = "cpu") -> None:
    model = model_on(device)
    others, inside = changed(rows, document)
    before, after = (logits(model, collate(each).to(torch.device(device))).cpu() for each in (rows, others))
    torch.testing.assert_close(after[~inside], before[~inside], rtol=tolerance, atol=tolerance)
    assert (after[inside] != before[inside]).any(-1).all()
    gradient = embedding_gradients(model, collate(rows).to(torch.device(device)), inside).cpu()
    assert (gradient[inside] == 0).all()
    assert (gradient[~inside] != 0).any(-1).all()


def assert_each_is_what_it_is_alone(rows: list[Row], tolerance: float, device: str = "cpu") -> None:
    model = model_on(device)
    tokens = np.concatenate([row.tokens for row in rows])
    lengths = [length for row in rows for length in row.lengths]
    documents = np.split(tokens, np.cumsum(lengths)[:-1])
    alone = [logits(model, collate([Row(d, np.full_like(d, IGNORED), [len(d)])]).to(torch.device(device))) for d in documents]
    packed, apart = logits(model, collate(rows).to(torch.device(device))).float(), torch.cat(alone).float()
    assert (packed - apart).norm() < tolerance * apart.norm()


@st.composite
def packed_rows(draw) -> list[list[int]]:
    """Lengths of the documents of up to three rows of one length; boundaries lie anywhere."""
    size = draw(st.integers(1, 40))
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        ends = sorted(draw(st.sets(st.integers(1, size), max_size=4)) | {size})
        rows.append(np.diff([0, *ends]).tolist())
    return rows


@pytest.mark.parametrize("name", CPU_WAYS)
@settings(max_examples=12, deadline=None)
@given(lengths=packed_rows(), data=st.data())
def test_changing_a_document_moves_no_other(name, lengths, data):
    rows = some_rows(lengths)
    document = data.draw(st.integers(0, sum(map(len, lengths)) - 1))
    with way(*CPU_WAYS[name]):
        assert_isolated(rows, document)


CASES = {
    "one length, batched together": ([[20, 20], [20, 20]], 1),
    "rows without boundaries": ([[24], [24], [24]], 1),
    "single tokens": ([[1, 1, 22], [1, 22, 1], [24]], 3),
    "as long as the window": ([[8, 16], [7, 17], [9, 15]], 2),
}


@pytest.mark.parametrize("name", CPU_WAYS)
@pytest.mark.parametrize(("lengths", "document"), CASES.values(), ids=CASES)
def test_these_rows_are_isolated_and_each_document_what_it_is_alone(name, lengths, document):
    rows = some_rows(lengths)
    with way(*CPU_WAYS[name]):
        assert_isolated(rows, document)
        assert_each_is_what_it_is_alone(rows, 1e-5 if "fp32" in name else 2e-2)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_documents_longer_than_two_products_take_are_isolated(kind):
    with way(kind, documents.SHORT):
        assert_isolated(some_rows([[documents.SHORT + 40, 300], [1340]]), 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("lengths", "document"), [*CASES.values(), ([[1064, 300], [1364]], 0)], ids=[*CASES, "longer documents"])
def test_on_a_gpu_documents_are_isolated_too(kind, lengths, document):
    rows, tolerance = some_rows(lengths), 1e-5 if kind == torch.float32 else 2e-2
    with way(kind, documents.SHORT, "cuda"):
        assert_isolated(rows, document, tolerance, "cuda")
        assert_each_is_what_it_is_alone(rows, tolerance, "cuda")


@pytest.mark.parametrize("boundaries", [False, True])
def test_without_document_boundaries_a_row_is_one_document(tmp_path, boundaries):
    first, second = [5, 6, 7, 8], [9, 10, 11, 12, 13]
    rows = []
    for number, document in enumerate((first, [token + 20 for token in first])):
        rows.append(ConcatRows(make_shards(tmp_path / str(number), [document, second]), 8, boundaries).row(0))
    before, after = (logits(model_on("cpu"), collate([row])) for row in rows)
    moved = (after != before).any(-1)
    assert moved[: len(first)].all()
    assert moved[len(first) :].tolist() == [not boundaries] * 4
