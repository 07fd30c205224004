"""The loss of a step is the mean over its supervised tokens, wherever they lie."""

import numpy as np
import pytest
import torch
from engines import ROWS, SHAPE, compare, deepspeed, reference, rows_of_step, supervised, table

from llmctl.model.build import build_model
from llmctl.tokens.rows import IGNORED, Row

Z_LOSS = 1e-4


def without_labels(rows: list[Row], empty: tuple[int, ...]) -> list[Row]:
    return [Row(r.tokens, np.full_like(r.labels, IGNORED), r.lengths) if n in empty else r for n, r in enumerate(rows)]


def an_empty_micro_batch(step: int) -> list[Row]:
    """Of two rows each, of two ranks: the first of the second rank has nothing to learn, the second of the first one token."""
    rows = without_labels(rows_of_step(step), (2, 3, 4))
    rows[5].labels[:-1], rows[5].labels[-1] = IGNORED, 7
    return rows


def an_empty_rank(step: int) -> list[Row]:
    return without_labels(rows_of_step(step), (2, 3, 6, 7))


@pytest.mark.parametrize("micro_batch", [1, 2, ROWS])
@pytest.mark.parametrize("rows_of", [an_empty_micro_batch, an_empty_rank])
def test_it_is_that_of_one_softmax_over_all_of_them(rows_of, micro_batch):
    """Beside `transformers` on each document alone."""
    model = build_model(SHAPE, seed=3)
    model.set_attn_implementation("eager")
    rows, total = rows_of(0), torch.zeros(())
    for row in rows:
        tokens, labels = (torch.from_numpy(ids).split(row.lengths) for ids in (row.tokens, row.labels))
        for document, wanted in zip(tokens, labels, strict=True):
            logits = model(document[None], use_cache=False).logits[0]
            total = total + torch.nn.functional.cross_entropy(logits, wanted, reduction="sum", ignore_index=IGNORED)
            total = total + Z_LOSS * logits[wanted != IGNORED].logsumexp(-1).square().sum()
    loss = total / supervised(rows)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    made, _ = reference(micro_batch, rows_of)
    np.testing.assert_allclose(made[0], [loss.item(), norm.item()], rtol=1e-5)


@pytest.mark.parametrize("zero_stage", [0, 2])
@pytest.mark.parametrize("rows_of", [an_empty_micro_batch, an_empty_rank])
def test_two_ranks_with_nothing_to_learn_on_one_equal_one_rank(two_ranks, zero_stage, rows_of):
    made, state = reference(rows_of=rows_of)
    for others, other in two_ranks.run(deepspeed, table(zero_stage=zero_stage), 2, rows_of):
        np.testing.assert_allclose(others, made, rtol=1e-4)
        compare(other, state)
