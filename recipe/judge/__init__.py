"""Is an answer correct, and do two answers mean the same; `pkg://recipe.judge` is the reward
function that verl loads."""

from recipe.judge.reward import accepted_answers, compute_score, extract_answer, normalise

__all__ = ["accepted_answers", "compute_score", "extract_answer", "normalise"]
