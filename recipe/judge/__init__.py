"""Is an answer correct, and do two answers mean the same; `pkg://recipe.judge` is the reward
function that verl loads."""

from recipe.judge.reward import compute_score

__all__ = ["compute_score"]
