"""Bounds at every step against tables computed here from the paper's printed formulas."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("verl")

from recipe.clip_entropy import config, schedules
from recipe.clip_entropy.schedules import SCHEDULES, ClipLines, Static
from recipe.core.clip import Bounds, Line
from recipe.core.settings import settings_of

T = 400
P = np.linspace(0, 1, 11)
H = 0.5 - 0.25 * P
M = 0.3 - 0.13 * P
EPS = np.full(11, 0.2)


def table(name: str, variant: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(upper, lower) at P, from lambda_k as sec. 4.2 prints it; "prose": its text's phase two."""
    lam = 1 - 2 * k / T
    if k <= T / 2:
        if name == "id":
            return lam * H + (1 - lam) * EPS, EPS
        return lam * EPS + (1 - lam) * H, EPS
    upper = EPS if name == "id" else H
    if variant == "printed":
        return upper, (1 + lam) * M - lam * EPS
    return upper, -lam * M + (1 + lam) * EPS


def epsilons(bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
    p = torch.from_numpy(P)
    return tuple(np.broadcast_to(np.asarray(eps), P.shape) for eps in bounds.epsilons(p))


@pytest.mark.parametrize("variant", ["printed", "prose"])
@pytest.mark.parametrize("name", ["id", "did"])
def test_bounds_at_every_step(name, variant):
    schedule = SCHEDULES[name](ClipLines(), T, second_phase=variant)
    for k in range(T + 1):
        upper, lower = epsilons(schedule.advance(k, 0.5))
        expected = table(name, variant, k)
        np.testing.assert_allclose(upper, expected[0], rtol=0, atol=1e-14, err_msg=f"upper, k={k}")
        np.testing.assert_allclose(lower, expected[1], rtol=0, atol=1e-14, err_msg=f"lower, k={k}")


@pytest.mark.parametrize(
    ("name", "variant", "k", "upper", "lower"),
    [  # by hand; upper and lower at p = 0 and p = 1
        ("id", "printed", 0, (0.5, 0.25), (0.2, 0.2)),
        ("id", "printed", 100, (0.35, 0.225), (0.2, 0.2)),
        ("id", "printed", 200, (0.2, 0.2), (0.2, 0.2)),
        ("id", "printed", 300, (0.2, 0.2), (0.25, 0.185)),
        ("id", "printed", 400, (0.2, 0.2), (0.2, 0.2)),
        ("id", "prose", 400, (0.2, 0.2), (0.3, 0.17)),
        ("did", "printed", 0, (0.2, 0.2), (0.2, 0.2)),
        ("did", "printed", 200, (0.5, 0.25), (0.2, 0.2)),
        ("did", "prose", 300, (0.5, 0.25), (0.25, 0.185)),
        ("did", "prose", 400, (0.5, 0.25), (0.3, 0.17)),
    ],
)
def test_bounds_by_hand(name, variant, k, upper, lower):
    bounds = SCHEDULES[name](ClipLines(), T, second_phase=variant).at(k)
    got = epsilons(bounds)
    assert (got[0][0], got[0][-1]) == pytest.approx(upper)
    assert (got[1][0], got[1][-1]) == pytest.approx(lower)


def test_the_second_phase_jumps_as_printed_and_not_as_in_the_prose():
    lowers = {
        variant: SCHEDULES["id"](ClipLines(), T, second_phase=variant).at(201).lower.intercept
        for variant in ("printed", "prose")
    }
    assert lowers == pytest.approx({"printed": 0.2995, "prose": 0.2005})


def test_another_split_keeps_the_ends_of_both_phases():
    schedule = SCHEDULES["did"](ClipLines(), T, phase_split=0.3, second_phase="prose")
    standard, high, low = ClipLines().base_upper, ClipLines().wide_upper, ClipLines().wide_lower
    assert schedule.at(0).upper == standard
    assert schedule.at(120).upper == pytest.approx(high)
    assert schedule.at(60).upper == pytest.approx(standard.lerp(high, 0.5))
    assert schedule.at(T).lower == pytest.approx(low)
    assert schedule.at(260).lower == pytest.approx(standard.lerp(low, 0.5))


def test_static_is_what_it_is_given():
    schedule = Static(ClipLines(base_upper=Line(0.0, 0.28)), None)
    for k in (0, 7, 10_000):
        assert schedule.advance(k, None) == Bounds(Line(0.0, 0.28), Line(0.0, 0.2))


def test_cut_offs():
    lines = ClipLines(eps_min=0.25, eps_max=0.4)
    upper, lower = epsilons(lines.bounds(lines.wide_upper, lines.wide_lower))
    np.testing.assert_allclose(upper, H.clip(0.25, 0.4))
    np.testing.assert_allclose(lower, M.clip(0.25, 0.4))
    assert epsilons(lines.bounds(lines.base_upper, lines.base_lower))[0][0] == 0.25


# --- OD at H_init 1, ratio 0.25, T 8: tau_low 0.25, tau_high(k) = 0.25 + 0.75 (1 - k/8), exact ---

OD_TRACE = [  # k, entropy, raising afterwards
    (0, 0.90, False),  # between: keeps the start state
    (1, 0.26, False),  # still above tau_low
    (2, 0.25, True),  # at tau_low: raise
    (3, 0.50, True),  # between: keeps raising
    (4, 0.625, True),  # at tau_high: not above it
    (5, 0.54, False),  # above 0.53125: lower
    (6, 0.30, False),  # between: keeps lowering
    (7, 0.10, True),
    (8, 0.26, False),  # above 0.25, where both thresholds end
]


def test_od_switches_where_it_should():
    lines = ClipLines()
    schedule = SCHEDULES["od"](lines, 8, h_init=1.0, ratio=0.25)
    raise_, lower = (
        lines.bounds(lines.wide_upper, lines.base_lower),
        lines.bounds(lines.base_upper, lines.wide_lower),
    )
    for k, entropy, raising in OD_TRACE:
        assert schedule.advance(k, entropy) == (raise_ if raising else lower), k
        assert schedule.metrics()["raising"] == raising
    assert schedule.metrics()["tau_high"] == schedule.metrics()["tau_low"] == 0.25


def test_od_measures_its_start_and_keeps_its_state_meanwhile():
    schedule = SCHEDULES["od"](ClipLines(), 10, h_init_steps=2, start="raise")
    for k, entropy in enumerate((1.2, 0.8)):  # mean 1.0; 1.2 alone would switch
        assert schedule.advance(k, entropy).upper == ClipLines().wide_upper
    assert schedule.h_init == 1.0
    assert schedule.advance(2, 0.85).upper == ClipLines().base_upper  # above tau_high = 0.84


def test_od_smoothing():
    schedule = SCHEDULES["od"](ClipLines(), 10, h_init=1.0, smoothing=0.5)
    schedule.advance(0, 0.9)
    schedule.advance(1, 0.1)  # (0.9 + 0.1) / 2 = 0.5
    assert schedule.metrics()["entropy_smoothed"] == pytest.approx(0.5)
    assert not schedule.raising
    schedule.advance(2, -0.1)  # 0.2
    assert schedule.raising


@pytest.mark.parametrize(
    ("name", "variant", "upper", "lower"),
    [  # at p = 0 and p = 1, by hand: k = T. The line that went on had a lower bound of 0 at 2T
        ("id", "printed", (0.2, 0.2), (0.2, 0.2)),
        ("id", "prose", (0.2, 0.2), (0.3, 0.17)),
        ("did", "printed", (0.5, 0.25), (0.2, 0.2)),
        ("did", "prose", (0.5, 0.25), (0.3, 0.17)),
    ],
)
@pytest.mark.parametrize("k", [T, T + 1, 600, 2 * T, 10 * T])
def test_a_run_beyond_T_keeps_the_last_bounds(name, variant, upper, lower, k):
    got = epsilons(SCHEDULES[name](ClipLines(), T, second_phase=variant).advance(k, 0.5))
    assert got[0][[0, -1]] == pytest.approx(upper, abs=1e-12)
    assert got[1][[0, -1]] == pytest.approx(lower, abs=1e-12)


def test_od_beyond_T_has_its_ceiling_at_its_floor():
    od = SCHEDULES["od"](ClipLines(), 10, h_init=1.0, ratio=0.2)
    od.advance(30, 0.5)  # went on, tau_high = 0.2 + 0.8 (1 - 3) = -1.4: below the floor
    assert (od.tau_low, od.tau_high) == pytest.approx((0.2, 0.2))
    assert not od.raising


def test_od_without_entropy():
    with pytest.raises(ValueError, match=r"schedule=od needs the policy's entropy.*bypass_mode"):
        SCHEDULES["od"](ClipLines(), 10).advance(0, None)


# --- checkpoints ---

MAKE = {
    "static": lambda: Static(ClipLines(), T),
    "id": lambda: SCHEDULES["id"](ClipLines(), T),
    "did": lambda: SCHEDULES["did"](ClipLines(), T),
    "od": lambda: SCHEDULES["od"](ClipLines(), T, h_init_steps=3, smoothing=0.3),
}


@pytest.mark.parametrize("name", MAKE)
def test_a_resumed_schedule_goes_on_as_if_nothing_had_happened(name):
    """Stopped after every one of the steps, so in each phase and in both of OD's states."""
    entropies = 0.6 + 0.55 * np.sin(np.arange(T) / 9)
    whole = MAKE[name]()
    seen = set()
    saved = None
    for k, entropy in enumerate(entropies.tolist()):
        if saved is not None:
            resumed = MAKE[name]()
            resumed.load_state_dict(json.loads(saved))
            expected = whole.advance(k, entropy)
            assert resumed.advance(k, entropy) == expected, k
            assert resumed.state_dict() == whole.state_dict()
            assert resumed.metrics() == whole.metrics()
        else:
            whole.advance(k, entropy)
        saved = json.dumps(whole.state_dict())
        seen |= {whole.metrics().get("phase"), whole.metrics().get("raising")}
    assert {"id": {1, 2}, "did": {1, 2}, "od": {0.0, 1.0}}.get(name, set()) <= seen


@pytest.mark.parametrize(
    ("other", "setting"),
    [
        ("did", "schedule is did, but the checkpoint was written with id"),
        ("id", "total_steps is 7"),
    ],
)
def test_a_state_of_another_schedule_is_refused(other, setting):
    state = SCHEDULES["id"](ClipLines(), T).state_dict()
    with pytest.raises(ValueError, match=setting):
        SCHEDULES[other](ClipLines(), T if other == "did" else 7).load_state_dict(state)


def test_a_run_with_constant_bounds_may_be_made_longer():
    settings = config.ClipSettings(schedule="static")
    state = settings.make_schedule(ClipLines(), 20).state_dict()
    settings.make_schedule(ClipLines(), 40).load_state_dict(state)


def test_lines_reach_the_bounds():
    lines = replace(ClipLines(), wide_upper=Line(0.0, 0.28))
    assert SCHEDULES["did"](lines, T).at(T // 2).upper == pytest.approx(Line(0.0, 0.28))


def test_settings_reach_their_schedule():
    settings = config.ClipSettings(
        schedule="od", od_h_init=0.7, od_h_init_steps=3, od_ratio=0.3, od_smoothing=0.4
    )
    od = settings.make_schedule(ClipLines(), 40)
    assert (od.h_init, od.h_init_steps, od.ratio, od.smoothing) == (0.7, 3, 0.3, 0.4)
    assert not od.raising
    assert (
        config.ClipSettings(schedule="od", od_start="raise").make_schedule(ClipLines(), 40).raising
    )
    did = config.ClipSettings(schedule="did", phase_split=0.3, second_phase="prose")
    assert did.make_schedule(ClipLines(), 40).split == 12
    assert did.make_schedule(ClipLines(), 40).second_phase == "prose"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_setting_of_another_schedule_is_refused(schedule):
    """But od_h_init, which the run scripts set whatever the preset."""
    fields = settings_of(config.ClipSettings)
    every = {name for other in SCHEDULES.values() for name in other.reads}
    assert "second_phase" in every and "od_smoothing" in every and "upper_slope" in every
    other_values = {"second_phase": "prose", "od_start": "raise", "total_steps": 50}
    for name in every:
        value = 7 if fields[name].type == "int" else other_values.get(name)
        if value is None:
            value = (fields[name].default or 0.2) / 2
        given = {"schedule": schedule, name: value}
        if name in SCHEDULES[schedule].reads or name == "od_h_init":
            config.ClipSettings(**given)
            continue
        refused = rf"{name}={value} has no effect with schedule={schedule}: leave it at"
        with pytest.raises(ValueError, match=refused):
            config.ClipSettings(**given)


def test_the_readme_s_own_schedule_works(monkeypatch):
    text = (Path(schedules.__file__).parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"Static": Static, "Bounds": Bounds, "LINES": schedules.LINES}
    exec(code, names)  # our own file
    monkeypatch.setitem(SCHEDULES, "linear", names["Linear"])
    settings = config.ClipSettings(schedule="linear", upper_intercept=0.4)
    linear = settings.make_schedule(ClipLines(), 10)
    assert linear.advance(0, 0.4).upper == ClipLines().wide_upper
    assert linear.advance(5, 0.3).upper == pytest.approx(
        ClipLines().wide_upper.lerp(ClipLines().base_upper, 0.5)
    )
    assert linear.advance(25, 0.3) == linear.advance(10, 0.3)  # its author need not think of it
    again = names["Linear"](ClipLines(), 10)
    again.load_state_dict(linear.state_dict())
    assert again.metrics() == {"entropy": 0.3, "entropy_start": 0.4}
