"""Learning-rate schedules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.train.schedule import Schedule

KINDS = ["constant", "linear", "cosine", "wsd"]


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_is_linear_from_the_first_step(kind):
    schedule = Schedule(kind, steps=100, warmup_steps=10)
    assert [schedule.multiplier(step) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_decay_ends_at_the_final_fraction(kind):
    schedule = Schedule(kind, steps=1000, warmup_steps=10, final_fraction=0.1)
    assert schedule.multiplier(999) == pytest.approx(0.1, abs=6e-3)
    assert schedule.multiplier(5000) == pytest.approx(0.1)


def test_wsd_is_flat_until_the_decay():
    schedule = Schedule("wsd", steps=100, decay_fraction=0.2)
    assert {schedule.multiplier(step) for step in range(80)} == {1.0}
    assert schedule.multiplier(90) == pytest.approx(0.5)


def test_a_longer_horizon_stops_the_decay_early():
    """Olmo 3 32B plans its cosine for 5.93T tokens and stops at 5.5T."""
    planned = Schedule("cosine", steps=928, final_fraction=0.1, horizon=1000)
    assert planned.multiplier(927) == pytest.approx(Schedule("cosine", 1000, 0, 0.1).multiplier(927))
    assert planned.multiplier(927) > 0.1


@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 500),
    warmup=st.integers(0, 50),
    final=st.floats(0, 1),
    step=st.integers(0, 600),
)
def test_multiplier_stays_between_final_fraction_and_one(kind, steps, warmup, final, step):
    schedule = Schedule(kind, steps, warmup, final)
    low = min(final, 1 / warmup) if warmup else final
    assert min(low, 1.0) - 1e-9 <= schedule.multiplier(step) <= 1.0 + 1e-9


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_the_rest_of_a_schedule_is_stretched_to_the_last_step(kind):
    """Olmo 3 7B: a cosine over 5T tokens, whose second half was stretched to the end of 5.93T."""
    planned = Schedule(kind, 1000, 20, 0.1)
    stretched = Schedule(kind, 1200, 20, 0.1, horizon=1000, stretch_from=500)
    assert [stretched.multiplier(step) for step in range(501)] == [planned.multiplier(step) for step in range(501)]
    assert stretched.multiplier(500 + 700 // 2) == pytest.approx(planned.multiplier(750))
    assert stretched.multiplier(1200) == pytest.approx(0.1)
    squeezed = Schedule(kind, 700, 20, 0.1, horizon=1000, stretch_from=500)
    assert squeezed.multiplier(600) == pytest.approx(planned.multiplier(750))
