"""One suite for every clip schedule of `recipe.clip_entropy.schedules.SCHEDULES`."""

from __future__ import annotations

import json
import math

import pytest
import torch

from recipe.clip_entropy.balance import CANDIDATES
from recipe.clip_entropy.config import ClipSettings
from recipe.clip_entropy.schedules import SCHEDULES, ClipLines, Static
from recipe.core.clip import Bounds
from recipe.core.settings import settings_of

STEPS = 12
P = torch.linspace(0, 1, 101, dtype=torch.float64)
# an entropy that falls, crosses every threshold of a closed loop, and comes back
ENTROPIES = [0.8, 0.7, 0.5, 0.3, 0.15, 0.1, 0.12, 0.3, 0.6, 0.9, 0.5, 0.2]
# further settings with which a schedule is tested, besides its defaults
SETTINGS: dict[str, list[dict]] = {
    "id": [{"second_phase": "prose", "phase_split": 0.3}],
    "did": [{"second_phase": "prose", "phase_split": 0.6}],
    "od": [
        {"od_h_init": 0.75, "od_start": "raise", "od_ratio": 0.4},
        {"od_h_init_steps": 3, "od_smoothing": 0.5},
    ],
    "bapo": [{"bapo_target": 0.4, "bapo_upper_end": 2.0, "bapo_lower_end": 0.95}],
}


def cases() -> list[tuple[str, dict]]:
    """Every schedule at its default settings, and at further ones."""
    return [(name, settings) for name in SCHEDULES for settings in [{}, *SETTINGS.get(name, [])]]


def step(schedule: Static, k: int, entropy: float | None) -> Bounds:
    """Moves a schedule through a training step: its bounds, then what the update measured, in
    which the positive terms grow with k."""
    bounds = schedule.advance(k, entropy)
    uppers, lowers = schedule.asks().get(CANDIDATES, ([], []))
    measured = {f"positive/{i}": (1 + i * k) / 20 for i in range(len(uppers))}
    schedule.learn(measured | {f"negative/{i}": 1 + i / 10 for i in range(len(lowers))})
    return bounds


def make(name: str, settings: dict, **limits: float) -> Static:
    """Makes a schedule as the trainer does; bound_min and bound_max cut the paper's lines."""
    chosen = ClipSettings(schedule=name, **settings, **limits)
    return chosen.make_schedule(chosen.lines(0.2, 0.28), STEPS)


def numbers(bounds: Bounds) -> list:
    return [*bounds.upper, *bounds.lower, bounds.eps_min, bounds.eps_max]


def stays_within_its_limits(name: str, settings: dict) -> None:
    own = SCHEDULES[name].own_limits
    for limits in ({},) if own else ({}, {"bound_min": 0.22, "bound_max": 0.26}):
        schedule = make(name, settings, **limits)
        low, high = limits.get("bound_min", 0.0), limits.get("bound_max", 1.0)
        for k, entropy in enumerate(ENTROPIES):
            bounds = step(schedule, k, entropy)
            if own:
                high = bounds.eps_max
            assert (bounds.eps_min, bounds.eps_max) == (low, high)
            for eps in bounds.epsilons(P):
                eps = torch.as_tensor(eps)
                assert eps.isfinite().all() and eps.min() >= low and eps.max() <= high


def is_deterministic(name: str, settings: dict) -> None:
    first, second = make(name, settings), make(name, settings)
    for k, entropy in enumerate(ENTROPIES):
        assert numbers(step(first, k, entropy)) == numbers(step(second, k, entropy))
        assert first.metrics() == second.metrics()


def resumes_after_every_step(name: str, settings: dict) -> None:
    """Saved as JSON and loaded into a new object: the next bounds, metrics and state are those of
    the run that went through."""
    schedule = make(name, settings)
    for k, entropy in enumerate(ENTROPIES):
        resumed = make(name, settings)
        resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
        assert numbers(step(resumed, k, entropy)) == numbers(step(schedule, k, entropy))
        assert resumed.metrics() == schedule.metrics()
        assert resumed.state_dict() == schedule.state_dict()


def shares_no_state_with_its_copy(name: str, settings: dict) -> None:
    """A saved state does not change as the schedule moves on."""
    schedule = make(name, settings)
    step(schedule, 0, ENTROPIES[0])
    saved = schedule.state_dict()
    text = json.dumps(saved)
    step(schedule, 1, ENTROPIES[1])
    resumed = make(name, settings)
    resumed.load_state_dict(json.loads(text))
    step(resumed, 1, ENTROPIES[1])
    assert json.dumps(saved) == text


def refuses_another_schedules_state(name: str, settings: dict) -> None:
    for other in SCHEDULES.keys() - {name}:
        with pytest.raises(ValueError, match=f"schedule is {name}, but .* with {other}"):
            make(name, settings).load_state_dict(make(other, {}).state_dict())
    schedule = make(name, settings)
    if schedule.total_steps is not None:  # a schedule that does not move has no length
        with pytest.raises(ValueError, match="total_steps is"):
            schedule.load_state_dict({**schedule.state_dict(), "total_steps": STEPS + 1})


def stays_at_its_end_beyond_T(name: str, settings: dict) -> None:
    """A run longer than T keeps the bounds of k = T: a line that went on would cross the other."""
    for k_after in (STEPS + 1, 2 * STEPS, 100 * STEPS):
        at_end, after = make(name, settings), make(name, settings)
        for k, entropy in enumerate(ENTROPIES):
            step(at_end, k, entropy)
            step(after, k, entropy)
        for entropy in ENTROPIES:
            expected = numbers(at_end.advance(STEPS, entropy))
            assert numbers(after.advance(k_after, entropy)) == expected
        assert after.metrics() == at_end.metrics()
        assert after.state_dict() == at_end.state_dict()


def has_finite_numbers_as_metrics(name: str, settings: dict) -> None:
    schedule = make(name, settings)
    for k, entropy in enumerate(ENTROPIES):
        step(schedule, k, entropy)
        metrics = schedule.metrics()
        assert metrics["entropy"] == entropy and metrics["entropy_start"] == ENTROPIES[0]
        for value in metrics.values():
            assert type(value) in (int, float) and math.isfinite(value)


def runs_without_the_entropy_or_says_why_not(name: str, settings: dict) -> None:
    """verl computes none in its bypass mode."""
    schedule = make(name, settings)
    try:
        for k in range(STEPS):
            step(schedule, k, None)
    except ValueError as error:
        assert f"schedule={name} needs the policy's entropy" in str(error)
    else:
        assert all(value is not None for value in schedule.metrics().values())


def stays_at_a_step_without_a_number(name: str, settings: dict) -> None:
    """A step whose tokens are all rejected has no entropy, and one whose loss is NaN, which verl
    skips, no measure: afterwards all is as if it had not been."""
    for unknown in (math.nan, math.inf, -math.inf):
        for at in range(3):
            through, without = make(name, settings), make(name, settings)
            for k, entropy in enumerate(ENTROPIES):
                if k == at:
                    bounds = through.advance(k, unknown)
                    assert all(map(math.isfinite, numbers(bounds)))
                    assert all(map(math.isfinite, through.metrics().values()))
                    uppers, lowers = through.asks().get(CANDIDATES, ([], []))
                    names = [f"positive/{i}" for i in range(len(uppers))]
                    names += [f"negative/{i}" for i in range(len(lowers))]
                    for lost in names:
                        through.learn(dict.fromkeys(names, 1.0) | {lost: unknown})
                    continue
                assert numbers(step(through, k, entropy)) == numbers(step(without, k, entropy))
            assert through.metrics() == without.metrics()
            assert through.state_dict() == without.state_dict()


PROPERTIES = (
    stays_within_its_limits,
    is_deterministic,
    resumes_after_every_step,
    shares_no_state_with_its_copy,
    refuses_another_schedules_state,
    stays_at_its_end_beyond_T,
    has_finite_numbers_as_metrics,
    runs_without_the_entropy_or_says_why_not,
    stays_at_a_step_without_a_number,
)


@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "settings"), cases(), ids=str)
def test_a_schedule(name, settings, check):
    check(name, settings)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_registered_under_its_name_and_can_be_chosen(name):
    assert SCHEDULES[name].name == name
    assert name in settings_of(ClipSettings)["schedule"].metadata["setting"].choices
    assert type(make(name, {})) is SCHEDULES[name]


def test_further_settings_are_of_schedules_that_exist():
    assert SETTINGS.keys() <= SCHEDULES.keys()


# ---- the suite finds what it is for --------------------------------------------------------------


class _Fake(Static):
    """Bounds that grow with the number of steps."""

    name = "fake"
    calls = 0

    def measure(self, k: int, entropy: float | None) -> None:
        self.calls += 1

    def at(self, k: int) -> Bounds:
        return self.lines.bounds(
            self.lines.wide_upper._replace(intercept=self.calls / 100), self.lines.base_lower
        )


class _Sound(_Fake):
    def state_dict(self):
        return {**super().state_dict(), "calls": self.calls}


class _BeyondItsLimits(_Sound):
    def at(self, k: int) -> Bounds:
        return super().at(k)._replace(eps_min=-1.0, eps_max=2.0)


class _Random(_Sound):
    def at(self, k: int) -> Bounds:
        self.calls += int(torch.randint(0, 2**40, ()))
        return super().at(k)


class _SharesItsState(_Sound):
    def __init__(self, lines: ClipLines, total_steps: int | None = None):
        super().__init__(lines, total_steps)
        self.seen: list[int] = []

    def at(self, k: int) -> Bounds:
        self.seen.append(k)
        return super().at(k)

    def state_dict(self):
        return {**super().state_dict(), "seen": self.seen}


class _TakesAnyState(_Sound):
    def load_state_dict(self, state):
        self.calls = state.get("calls", 0)


class _RunsOn(_Sound):
    def advance(self, k: int, entropy: float | None) -> Bounds:
        return super().advance(k, entropy)._replace(eps_max=1 / (1 + k))


class _TensorMetrics(_Sound):
    def metrics(self):
        return {**super().metrics(), "calls": torch.tensor(float(self.calls))}


class _NeedsTheEntropy(_Sound):
    def at(self, k: int) -> Bounds:
        if self.entropy is None:
            raise ValueError("no entropy")
        return super().at(k)


class _CountsEveryStep(_Sound):
    def at(self, k: int) -> Bounds:
        self.calls += 1
        return super().at(k)


BROKEN = {
    _BeyondItsLimits: stays_within_its_limits,
    _Random: is_deterministic,
    _Fake: resumes_after_every_step,  # its state has no calls
    _SharesItsState: shares_no_state_with_its_copy,
    _TakesAnyState: refuses_another_schedules_state,
    _RunsOn: stays_at_its_end_beyond_T,
    _TensorMetrics: has_finite_numbers_as_metrics,
    _NeedsTheEntropy: runs_without_the_entropy_or_says_why_not,
    _CountsEveryStep: stays_at_a_step_without_a_number,
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda schedule: schedule.__name__)
def test_a_broken_schedule_fails(broken, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "fake", broken)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        BROKEN[broken]("fake", {})


@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
def test_a_sound_schedule_passes_and_a_new_name_is_in_the_suite(check, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "fake", _Sound)
    assert ("fake", {}) in cases()
    check("fake", {})
