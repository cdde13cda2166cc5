"""Settings of `algorithm.entropy_control`, and the presets: one method of entropy control each.

`entropy_control.yaml` reads a preset's values with the resolver `${preset:entropy_control,<preset>,
<key>}`, and a command-line override still wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from recipe.core import settings
from recipe.core.settings import check_settings, setting

NAME = "entropy_control"
NODE = "algorithm.entropy_control"
COEFFICIENT = ("schedule", "target")  # controllers that move the coefficient of the entropy


@dataclass(frozen=True)
class Preset:
    """What a method sets."""

    controller: str = "none"
    shape: str = "linear"
    entropy_coeff: float = 0.0  # of the actor: what `none` leaves in place
    calculate_entropy: bool = False  # of the actor: whether the update computes the entropies
    target: float = 0.2
    lower_end: float = 0.4
    upper_end: float = 0.5


PRESETS: dict[str, Preset] = {
    "grpo": Preset(),  # no bonus and no controller
    "constant": Preset(entropy_coeff=0.001, calculate_entropy=True),  # value is ours
    "linear": Preset("schedule", "linear", calculate_entropy=True),  # values are ours
    "cosine": Preset("schedule", "cosine", calculate_entropy=True),  # values are ours
    "target": Preset("target", calculate_entropy=True),  # arXiv 2505.22312, its 7b_8k.sh
    "entrocraft": Preset("range"),  # arXiv 2604.26326, its Qwen3-4B script
    "entrocraft_cosine": Preset("range", "cosine", lower_end=0.1, upper_end=0.2),  # the same, cos
    "entropic": Preset("pi", target=0.1),  # arXiv 2511.15248, its Qwen3-8B script, temperature 0.6
}
# the controllers, each with its settings
CONTROLLERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "schedule": ("shape", "total_steps", "coef_start", "coef_end"),
    "target": ("target", "coef_init", "coef_delta", "coef_min", "coef_max"),
    "range": (
        "shape",
        "total_steps",
        "lower_start",
        "lower_end",
        "upper_start",
        "upper_end",
        "mean_over",
    ),
    "pi": ("target", "proportional", "integral", "alpha_max", "probable_above"),
}


@dataclass(frozen=True)
class EntropyControlSettings:
    """The controller and its values; entropies in nats per token."""

    preset: str = setting("grpo", "ours: no controller; the recipe's yaml: target", choices=PRESETS)
    controller: str = setting(
        "none", "the preset's; none: entropy_coeff stays", choices=CONTROLLERS
    )
    shape: str = setting(
        "linear", "ours; arXiv 2604.26326: linear is best", choices=("linear", "cosine")
    )
    total_steps: int | None = setting(
        None, "T of a schedule or range; null: trainer.total_training_steps", kind=int, above=0
    )
    coef_start: float = setting(0.001, "ours: coefficient at the first step", at_least=0)
    coef_end: float = setting(0.0, "ours: coefficient at T", at_least=0)
    target: float = setting(
        0.2,
        "arXiv 2505.22312, 7B; for pi set 0.1, entropic's (arXiv 2511.15248, temperature 0.6)",
        above=0,
    )
    coef_init: float = setting(0.0, "arXiv 2505.22312: before the first step", at_least=0)
    coef_delta: float = setting(
        1e-4, "its 7b_8k.sh: change per step; arXiv 2505.22312: 0.005; run_ds_7b.sh: 0.001", above=0
    )
    coef_min: float = setting(0.0, "arXiv 2505.22312", at_least=0)
    coef_max: float = setting(
        0.005, "its 7b_8k.sh; arXiv 2505.22312: none; run_ds_7b.sh: 0.5", above=0
    )
    lower_start: float = setting(0.6, "arXiv 2604.26326, Qwen3-4B: the lower line", at_least=0)
    lower_end: float = setting(0.4, "arXiv 2604.26326, Qwen3-4B: at T", at_least=0)
    upper_start: float = setting(0.7, "arXiv 2604.26326, Qwen3-4B: the upper line", at_least=0)
    upper_end: float = setting(0.5, "arXiv 2604.26326, Qwen3-4B: at T", at_least=0)
    mean_over: str = setting(
        "accepted",
        "arXiv 2604.26326, eq. 5; all: its code, where rejected tokens stay in the mean",
        choices=("accepted", "all"),
    )
    proportional: float = setting(1.0, "arXiv 2511.15248, script", at_least=0)
    integral: float = setting(0.01, "arXiv 2511.15248, script: per update", at_least=0)
    alpha_max: float = setting(1.0, "arXiv 2511.15248, code", above=0)
    probable_above: float = setting(
        0.95, "arXiv 2511.15248, code: whose tokens are weighed; 0: all", at_least=0, below=1
    )

    @classmethod
    def from_config(cls, config: DictConfig) -> EntropyControlSettings:
        """Makes the settings of a run's config."""
        return settings.build(cls, settings.plain(config.algorithm.get(NAME) or {}), NODE)

    def __post_init__(self) -> None:
        check_settings(self, NODE)
        preset = PRESETS[self.preset]
        if self.controller != preset.controller and preset.controller != "none":
            self._refuse(
                f"preset={self.preset}",
                f"has no effect with controller={self.controller}",
                f"set {NODE}.controller={preset.controller}, or another preset",
            )
        if self.controller == "schedule" and self.coef_start == self.coef_end == 0:
            self._refuse("coef_start=0", "and coef_end=0 give no bonus", "use a number above 0")
        if self.controller == "schedule" and self.coef_start == self.coef_end:
            self._refuse(
                f"coef_start={self.coef_start}", "is coef_end too, so that nothing moves",
                "use another coef_end, or actor_rollout_ref.actor.entropy_coeff",
            )  # fmt: skip
        if self.controller == "target" and not self.coef_min <= self.coef_init <= self.coef_max:
            self._refuse(
                f"coef_init={self.coef_init}", "is outside its bounds",
                f"use a number from coef_min={self.coef_min} to coef_max={self.coef_max}",
            )  # fmt: skip
        if self.controller == "target" and self.coef_min == self.coef_max:
            self._refuse(
                f"coef_min={self.coef_min}", "is coef_max too, so that nothing moves",
                "use a larger coef_max, or actor_rollout_ref.actor.entropy_coeff",
            )  # fmt: skip
        if self.controller == "range":
            for end in ("start", "end"):
                lower, upper = getattr(self, f"lower_{end}"), getattr(self, f"upper_{end}")
                if lower > upper:
                    self._refuse(
                        f"lower_{end}={lower}", f"is above upper_{end}={upper}",
                        "use a lower line that is at or below the upper one",
                    )  # fmt: skip
        if self.controller == "pi" and self.proportional == self.integral == 0:
            self._refuse(
                "proportional=0", "and integral=0 change no advantage", "use a number above 0"
            )

    def _refuse(self, what: str, problem: str, cure: str) -> None:
        raise ValueError(f"{NODE}.{what} {problem}: {cure}.")
