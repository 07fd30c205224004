"""Long documents: every one in its bucket, drawn as wanted, and what packing makes of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.tokens.buckets import Bucket, buckets_of, compressed_sizes, draw, powers_of_two, short, within
from llmctl.tokens.packing import best_fit
from llmctl.tokens.packing_table import compare, first_fit

LENGTHS = st.lists(st.integers(1, 5000), min_size=1, max_size=60).map(np.array)


@given(LENGTHS, st.sets(st.integers(1, 4000), min_size=1, max_size=5).map(sorted))
def test_every_document_is_in_the_bucket_of_its_length(lengths, edges):
    buckets = buckets_of(lengths, edges)
    found = {int(number): bucket for bucket in buckets for number in bucket.documents}
    assert set(found) == set(np.flatnonzero(lengths >= edges[0]).tolist())
    for number, bucket in found.items():
        assert bucket.low <= lengths[number] < (bucket.high or np.inf)
    assert sum(bucket.tokens for bucket in buckets) == lengths[lengths >= edges[0]].sum()
    assert buckets[-1].high is None


@given(LENGTHS)
def test_powers_of_two_hold_all_documents(lengths):
    buckets = powers_of_two(lengths)
    assert sum(len(bucket.documents) for bucket in buckets) == len(lengths)
    assert all(bucket.high is None or bucket.high == 2 * bucket.low for bucket in buckets)


def test_names():
    assert [short(length) for length in (600, 4096, 65536, 2**20)] == ["600", "4k", "64k", "1M"]
    assert [bucket.name for bucket in buckets_of(np.array([1]), [512, 8192])] == ["512-8k", "8k and more"]


@given(LENGTHS, st.floats(0, 4), st.integers(0, 2**32), st.integers(100, 5000))
def test_documents_are_drawn_evenly_until_they_hold_the_tokens(lengths, passes, seed, capacity):
    bucket = Bucket(1, None, np.arange(10, 10 + len(lengths)), lengths)
    counted = np.minimum(lengths, capacity)
    wanted = passes * counted.sum()
    drawn = draw(bucket, wanted, capacity, seed)
    times = np.bincount(drawn - 10, minlength=len(lengths))
    assert times.max() - times.min() <= 1  # none is drawn again before all have been
    assert wanted - 1 <= (counted * times).sum() <= wanted + counted.max()
    assert np.array_equal(drawn, draw(bucket, wanted, capacity, seed))


def test_the_filter_leaves_out_both_ends():
    texts = ["a" * 4000, "the cat sat on the mat, and the dog lay by the door. " * 40]
    texts += [" ".join(str(number * 7919 % 9973) for number in range(700)), "".join(map(chr, range(300, 1300)))]
    sizes = compressed_sizes(iter(texts), workers=2)
    assert sizes.tolist() == sorted(sizes)  # runs of one letter compress most, a list of other letters least
    assert within(sizes, 0.25, 0.25).tolist() == [False, True, True, False]
    assert within(sizes, 0.0, 0.0).all()


@given(st.lists(st.floats(0, 1), max_size=50).map(np.array), st.floats(0, 0.5), st.floats(0, 0.49))
def test_the_filter_leaves_out_the_shares_that_it_is_asked_to(sizes, smallest, largest):
    kept = within(sizes, smallest, largest)
    assert kept.sum() == len(sizes) - int(smallest * len(sizes)) - int(largest * len(sizes))
    if kept.any():
        assert (sizes < sizes[kept].min()).sum() <= int(smallest * len(sizes))


@settings(deadline=None)
@given(LENGTHS, st.integers(64, 4096))
def test_the_table_of_packings(lengths, capacity):
    best, first, stream = compare(lengths, capacity)
    assert best.rows == len(best_fit(lengths, capacity))
    assert stream.rows == -(-lengths.sum() // capacity) <= best.rows
    assert first.rows == by_hand(lengths, capacity)
    assert best.cut == first.cut == (lengths > capacity).sum()
    at, cut = 0, 0
    for length in lengths.tolist():
        cut += at // capacity != (at + length - 1) // capacity
        at += length
    assert stream.cut == cut
    for way in (best, first):
        assert way.padding == pytest.approx(1 - lengths.sum() / (way.rows * capacity))


def by_hand(lengths: np.ndarray, capacity: int) -> int:
    rooms, full = [], 0
    for length in lengths.tolist():
        full += length // capacity
        rest = length % capacity
        if rest:
            place = next((place for place, room in enumerate(rooms) if room >= rest), None)
            if place is None:
                rooms.append(capacity - rest)
            else:
                rooms[place] -= rest
    return full + len(rooms)


def test_first_fit_of_nothing():
    assert first_fit(np.array([], dtype=np.int64), 64) == 0
