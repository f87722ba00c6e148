"""How the weight of the KL term grows: exact, never above its cap, never below 0, in as many cycles as asked for."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recvae.errors import UsageError
from recvae.training.schedules import NAMES, constant, cosine, cyclical, linear, schedule

CAPS, UPDATES = st.floats(0, 2), st.integers(0, 10**6)


@given(cap=CAPS, steps=st.integers(1, 10**6), update=UPDATES)
def test_linear_schedule_is_exact(cap: float, steps: int, update: int) -> None:
    """Liang et al. write min(cap, t / T) with T = steps / cap; it never passes the cap, nor falls back to it."""
    beta = linear(cap, steps)
    expected = min(cap, update / (steps / cap)) if cap > 0 else 0.0
    assert beta(update) == pytest.approx(expected, rel=1e-12)
    assert 0 <= beta(update) <= beta(update + 1) <= cap
    assert (beta(0), beta(steps), beta(10 * steps)) == (0, cap, cap)


@given(cap=CAPS, update=UPDATES)
def test_without_steps_the_cap_holds_from_the_start(cap: float, update: int) -> None:
    assert linear(cap, 0)(update) == constant(cap)(update) == cap
    assert schedule("constant", cap, 1000, 500, 0.9)(update) == cap
    assert schedule("linear", cap, 1000, None, 0.0)(update) == cap


def test_papers_constants_give_the_papers_schedule() -> None:
    """vae_cf: min(0.2, updates / 200000), so the cap is reached after 40,000 updates."""
    beta = schedule("linear", 0.2, 46_800, steps=40_000, fraction=0.5)
    assert beta(20_000) == pytest.approx(20_000 / 200_000)
    assert (beta(39_999) < 0.2, beta(40_000), beta(199_999)) == (True, 0.2, 0.2)


@given(cap=CAPS, updates=st.integers(1, 500), times=st.integers(1, 50), share=st.floats(0, 1), part=st.integers(0, 4))
def test_with_a_fraction_the_batch_size_does_not_change_beta(
    cap: float, updates: int, times: int, share: float, part: int
) -> None:
    """Batches that are `times` smaller make `times` more updates; at the same part of the run beta is the same."""
    small, large = (schedule("linear", cap, 4 * n, None, share) for n in (updates * times, updates))
    at = part * updates
    rounding = cap / max(1, share * 4 * updates - 1)  # steps are whole
    assert small(at * times) == pytest.approx(large(at), abs=rounding + 1e-9)
    assert small(4 * updates * times) == large(4 * updates) == cap


@given(cap=CAPS, steps=st.integers(1, 10**6), update=UPDATES)
def test_cosine_schedule_rises_as_half_a_wave_and_stays(cap: float, steps: int, update: int) -> None:
    beta = cosine(cap, steps)
    assert (beta(0), beta(steps), beta(10 * steps)) == (0, cap, cap)
    assert 0 <= beta(update) <= beta(update + 1) <= cap
    mirrored = cap - beta(steps - min(update, steps))  # the second half is the first one upside down
    assert beta(min(update, steps)) == pytest.approx(mirrored, abs=1e-9)


def test_cosine_schedule_is_that_worked_out_by_hand() -> None:
    beta = cosine(cap=0.2, steps=6)
    expected = [0, 0.1 * (1 - 3**0.5 / 2), 0.05, 0.1, 0.15, 0.1 * (1 + 3**0.5 / 2), 0.2, 0.2]
    assert [beta(t) for t in range(8)] == pytest.approx(expected)


@given(cap=CAPS, period=st.integers(1, 1000), steps=st.integers(0, 1000), update=st.integers(0, 10**5))
def test_every_cycle_is_a_linear_schedule_of_its_own(cap: float, period: int, steps: int, update: int) -> None:
    beta = cyclical(cap, period, steps)
    assert beta(update) == beta(update + period) == linear(cap, steps)(update % period)


@pytest.mark.parametrize("name", NAMES)
@given(
    cap=CAPS,
    total=st.integers(1, 10**4),
    steps=st.none() | st.integers(0, 10**4),
    fraction=st.floats(0, 1),
    cycles=st.integers(1, 20),
    update=st.integers(0, 2 * 10**4),
)
def test_no_schedule_leaves_the_interval_from_0_to_its_cap(
    name: str, cap: float, total: int, steps: int | None, fraction: float, cycles: int, update: int
) -> None:
    assume(name != "cyclical" or steps is None or steps <= -(-total // cycles))  # a longer rise is refused
    assert 0 <= schedule(name, cap, total, steps, fraction, cycles)(update) <= cap


@given(cap=CAPS, total=st.integers(1, 10**4), steps=st.none() | st.integers(0, 10**4), fraction=st.floats(0, 1))
def test_schedules_without_cycles_never_fall(cap: float, total: int, steps: int | None, fraction: float) -> None:
    for name in ("linear", "constant", "cosine"):
        beta = schedule(name, cap, total, steps, fraction)
        values = [beta(update) for update in range(0, total + 1, max(1, total // 50))]
        assert values == sorted(values)


@given(share=st.floats(0, 1), period=st.integers(2, 200), cycles=st.integers(1, 10))
def test_a_run_that_can_be_divided_has_exactly_so_many_cycles(share: float, period: int, cycles: int) -> None:
    beta = schedule("cyclical", 1.0, period * cycles, None, share, cycles)
    values = [beta(update) for update in range(period * cycles)]
    falls = [update for update in range(1, len(values)) if values[update] < values[update - 1]]
    assert set(falls) <= {period * cycle for cycle in range(1, cycles)}
    rise = round(share * period)
    reached = [update for update in range(period * cycles) if update % period >= rise]
    assert all(values[update] == 1.0 for update in reached), "the cap is reached after the part asked for"
    assert len(falls) == (cycles - 1 if 0 < rise < period or (rise == period and period > 1) else 0)


@given(total=st.integers(1, 3000), cycles=st.integers(1, 12))
def test_no_run_begins_more_cycles_than_asked_for(total: int, cycles: int) -> None:
    beta = schedule("cyclical", 1.0, total, None, 0.5, cycles)
    values = [beta(update) for update in range(total)]
    assert sum(after < before for before, after in pairwise(values)) <= cycles - 1


def test_a_run_ends_at_the_cap_of_its_last_cycle() -> None:
    """MovieLens-20M as in the paper's notebook for 10 epochs of 117 updates, in 4 cycles."""
    assert schedule("cyclical", 1.0, 1170, None, 0.85, 4)(1169) == 1.0


def test_a_run_shorter_than_its_cycles_still_has_a_schedule() -> None:
    beta = schedule("cyclical", 0.2, 2, None, 0.85, 10)
    assert all(0 <= beta(update) <= 0.2 for update in range(4))


def test_given_steps_take_the_place_of_the_fraction() -> None:
    for name in ("linear", "cosine"):
        assert schedule(name, 0.4, 1000, 50, 0.9)(50) == 0.4 > schedule(name, 0.4, 1000, None, 0.9)(50)
    in_cycles = schedule("cyclical", 0.4, 1000, 50, 0.9, cycles=4)
    assert [in_cycles(update) for update in (0, 25, 50, 249, 250, 300)] == [0.0, 0.2, 0.4, 0.4, 0.0, 0.4]


def test_a_rise_longer_than_a_cycle_is_refused() -> None:
    """The paper's 40,000 steps would leave beta near 0 for good on most data sets."""
    with pytest.raises(UsageError, match="got anneal_steps=40,000, longer than a cycle of 25 updates"):
        schedule("cyclical", 1.0, 100, steps=40_000, cycles=4)
    assert schedule("cyclical", 1.0, 100, steps=25, cycles=4)(24) == pytest.approx(24 / 25)
