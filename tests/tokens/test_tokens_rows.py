"""Rows, packing, order: no token lost, no label across a boundary, every row once."""

import numpy as np
import pytest
from helpers import make_shards
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.tokens.batch import collate
from llmctl.tokens.order import DataOrder, Permutation, deal
from llmctl.tokens.packing import best_fit
from llmctl.tokens.rows import ConcatRows, PackedRows
from llmctl.tokens.shards import Joined

DOCUMENTS = [[1, 2, 3, 9], [4, 5, 9], [6, 9], [7, 8, 1, 2, 3, 9]]


def test_concatenated_rows_are_the_stream_and_its_next_tokens(tmp_path):
    rows = ConcatRows(make_shards(tmp_path / "s", DOCUMENTS), 4, document_boundaries=False)
    stream = [token for document in DOCUMENTS for token in document]
    assert len(rows) == 3
    for number in range(3):
        row = rows.row(number)
        assert row.tokens.tolist() == stream[4 * number : 4 * number + 4]
        assert row.labels.tolist() == stream[4 * number + 1 : 4 * number + 5]
        assert row.lengths == [4]
        assert rows.supervised(number) == 4


@given(st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=5), st.integers(0, 40), st.integers(0, 40))
def test_parts_are_read_as_one_stream(pieces, start, length):
    whole = [token for piece in pieces for token in piece]
    joined = Joined([np.array(piece, dtype=np.uint16) for piece in pieces], np.dtype(np.uint16))
    assert len(joined) == len(whole)
    assert joined[start : start + length].tolist() == whole[start : start + length]


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_rows_do_not_depend_on_the_parts(tmp_path, parts):
    masks = [[0, 0, 2, 1], [0, 2, 1], [0, 1], [0, 0, 0, 0, 2, 1]]
    one, many = (make_shards(tmp_path / str(n), DOCUMENTS, masks, n) for n in (1, parts))
    for kind in (lambda shards: ConcatRows(shards, 4, True), lambda shards: PackedRows(shards, 10)):
        for number in range(len(kind(one))):
            mine, theirs = kind(one).row(number), kind(many).row(number)
            assert (mine.tokens == theirs.tokens).all()
            assert (mine.labels == theirs.labels).all()


def test_with_boundaries_no_label_crosses_them(tmp_path):
    rows = ConcatRows(make_shards(tmp_path / "s", DOCUMENTS), 6, document_boundaries=True)
    first, second = rows.row(0), rows.row(1)
    assert first.tokens.tolist() == [1, 2, 3, 9, 4, 5]
    assert first.labels.tolist() == [2, 3, 9, -100, 5, 9]
    assert first.lengths == [4, 2]
    assert second.tokens.tolist() == [9, 6, 9, 7, 8, 1]
    assert second.labels.tolist() == [-100, 9, -100, 8, 1, 2]
    assert second.lengths == [1, 2, 3]
    assert [rows.supervised(i) for i in range(2)] == [5, 4]


def test_packed_rows_mask_prompts_and_padding(tmp_path):
    masks = [[0, 0, 2, 1], [0, 2, 1], [0, 1], [0, 0, 0, 0, 2, 1]]
    rows = PackedRows(make_shards(tmp_path / "s", DOCUMENTS, masks), 10)
    seen = []
    for number in range(len(rows)):
        row = rows.row(number)
        assert sum(row.lengths) == 10
        assert rows.supervised(number) == int((row.labels != -100).sum())
        at = 0
        for length in row.lengths:
            document = row.tokens[at : at + length].tolist()
            if document in DOCUMENTS:
                index = DOCUMENTS.index(document)
                seen.append(index)
                wanted = [t if m else -100 for t, m in zip(document[1:], masks[index][1:], strict=True)]
                assert row.labels[at : at + length].tolist() == [*wanted, -100]
            at += length
    assert sorted(seen) == [0, 1, 2, 3]


def test_documents_are_taken_as_often_as_they_are_named_and_end_with_the_row_on_demand(tmp_path):
    shards = make_shards(tmp_path / "s", DOCUMENTS)
    longest = int(np.argmax(shards.lengths))
    rows = PackedRows(shards, 4, np.array([longest, longest]))
    assert sorted(length for row in range(len(rows)) for _, _, length in rows.pieces(row)) == [2, 2, 4, 4]
    rows = PackedRows(shards, 4, np.array([longest, longest]), truncate=True)
    assert [rows.pieces(row) for row in range(len(rows))] == [[(longest, 0, 4)]] * 2
    assert (rows.documents, rows.tokens, rows.padding) == (2, 8, 0.0)


def test_collate_restarts_positions_and_counts_boundaries(tmp_path):
    rows = ConcatRows(make_shards(tmp_path / "s", DOCUMENTS), 6, document_boundaries=True)
    batch = collate([rows.row(0), rows.row(1)])
    assert batch.tokens.shape == (1, 12)
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 0, 1, 0, 0, 1, 0, 1, 2]
    assert batch.cu_seqlens.tolist() == [0, 4, 6, 7, 9] + [12] * 12  # of 16 documents, as those of other batches
    assert batch.max_length == 4
    assert batch.lengths == (4, 2, 1, 2, 3)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 70), max_size=60), capacity=st.integers(1, 40))
def test_packing_loses_nothing_and_overfills_nothing(lengths, capacity):
    rows = best_fit(np.array(lengths, dtype=np.int64), capacity)
    covered = [np.zeros(length, dtype=int) for length in lengths]
    for row in rows:
        assert 0 < sum(length for _, _, length in row) <= capacity
        for document, start, length in row:
            covered[document][start : start + length] += 1
    assert all((c == 1).all() for c in covered)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=200))
def test_packing_is_best_fit(lengths):
    """At most one row is half empty: two would have gone together."""
    rows = best_fit(np.array(lengths, dtype=np.int64), 16)
    assert sum(sum(piece[2] for piece in row) <= 8 for row in rows) <= 1


@given(size=st.integers(1, 3000), key=st.text(max_size=5))
@settings(max_examples=50, deadline=None)
def test_the_shuffle_is_a_permutation(size, key):
    permutation = Permutation(size, key)
    assert sorted(permutation(index) for index in range(size)) == list(range(size))


def test_the_shuffle_shuffles():
    order = [Permutation(10_000, "1")(index) for index in range(10_000)]
    steps = np.abs(np.diff(order))
    assert steps.mean() == pytest.approx(10_000 / 3, rel=0.05)  # of a random permutation
    assert order != [Permutation(10_000, "2")(index) for index in range(10_000)]


@given(total=st.integers(0, 10_000), shares=st.lists(st.floats(0.01, 1), min_size=1, max_size=6))
def test_dealing_sums_exactly_and_is_off_by_less_than_one(total, shares):
    counts = deal(total, shares)
    assert sum(counts) == total
    assert all(abs(count - total * share / sum(shares)) < 1 for count, share in zip(counts, shares, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    rows=st.integers(1, 300),
    seed=st.integers(0, 5),
)
def test_order_takes_every_row_of_a_source_before_any_twice(counts, rows, seed):
    order = DataOrder(counts, [1.0] * len(counts), rows, str(seed))
    taken = [order.at(position) for position in range(rows)]
    assert taken == [DataOrder(counts, [1.0] * len(counts), rows, str(seed)).at(position) for position in range(rows)]
    for source, count in enumerate(counts):
        times = np.bincount([row for s, row in taken if s == source], minlength=count)
        assert times.max() - times.min() <= 1
        assert times.sum() == order.dealt[source]


def test_another_stage_sees_other_rows():
    pretrain, midtrain = (DataOrder([1000], [1.0], 100, f"1/{stage}") for stage in ("pretrain", "midtrain"))
    common = {pretrain.at(n) for n in range(100)} & {midtrain.at(n) for n in range(100)}
    assert len(common) < 30  # 10 by chance


@pytest.mark.parametrize("kind", ["concat", "packed"])
def test_a_row_is_made_of_its_pieces(tmp_path, kind):
    shards = make_shards(tmp_path / "s", DOCUMENTS, parts=2)
    rows = ConcatRows(shards, 4, True) if kind == "concat" else PackedRows(shards, 5)
    for number in range(len(rows)):
        pieces = rows.pieces(number)
        tokens = [token for document, first, length in pieces for token in DOCUMENTS[document][first : first + length]]
        assert rows.row(number).tokens.tolist()[: len(tokens)] == tokens
        assert [length for _, _, length in pieces] == rows.row(number).lengths[: len(pieces)]


def test_documents_are_told_by_name_whatever_part_they_are_in(tmp_path):
    shards = make_shards(tmp_path / "s", DOCUMENTS, parts=2)
    assert shards.names({0, 2, 3}) == {number: (f"d{number}", "own.txt") for number in (0, 2, 3)}
