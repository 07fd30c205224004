"""Tokens made into steps: batches that grow, and every row in one step."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llmctl.recipe.steps import Growth, Steps


@st.composite
def growing(draw):
    seq_len, first, doublings = draw(st.sampled_from([8, 64])), draw(st.integers(1, 4)), draw(st.integers(0, 4))
    rows = first << doublings
    return Steps(seq_len, rows, Growth(first, rows, draw(st.integers(1, 20_000))))


@given(growing(), st.integers(1, 300))
def test_steps_take_every_row_once_and_in_order(steps, count):
    taken = [row for step in range(count) for row in steps.rows_of(step)]
    assert taken == list(range(steps.rows_before(count)))
    assert steps.within(len(taken)) == count
    assert steps.within(len(taken) - 1) == count - 1


@given(growing())
def test_the_batch_doubles_up_to_its_size(steps):
    sizes = [size for _, _, size in steps.phases]
    assert sizes[-1] == steps.rows
    assert all(later == 2 * earlier for earlier, later in pairwise(sizes))
    assert steps.fewest_rows == sizes[0]


def test_phases_have_equal_tokens():
    steps = Steps(100, 8, Growth(2, 8, tokens=4_000))  # 2 and 4 rows for 2,000 tokens each
    assert steps.phases == [(0, 0, 2), (10, 20, 4), (15, 40, 8)]


def test_a_batch_that_does_not_grow():
    steps = Steps(128, 16)
    assert (steps.rows_of(5), steps.within_tokens(128 * 16 * 7 + 1)) == (range(80, 96), 7)


def test_a_size_grows_by_tokens():
    growth = Growth(64, 512, tokens=3_000)
    assert [growth.at(tokens) for tokens in (0, 999, 1_000, 2_000, 2_999, 3_000, 10**9)] == [64, 64, 128, 256, 256, 512, 512]
    assert Growth(512, 512, 0).at(0) == 512
