"""The versions that we name: ranges in pyproject.toml, exact ones in constraints.txt, lower bounds for .ci/oldest."""

import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def named(*lists: list[str]) -> dict[str, Requirement]:
    found = [Requirement(each) for each in chain(*lists) if not each.startswith("vitft")]
    return {canonicalize_name(each.name): each for each in found}


def versions(lines: str) -> dict[str, Version]:
    """Read ``name==version`` lines, and nothing else."""
    pairs = [line.split("==") for line in lines.splitlines()]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_the_constraints_name_all_that_ci_installs_and_stay_within_the_ranges() -> None:
    exact = versions((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    wanted = named(PROJECT["dependencies"], EXTRAS["test"], EXTRAS["dev"])
    assert not wanted.keys() - exact.keys()
    assert [name for name, requirement in wanted.items() if exact[name] not in requirement.specifier] == []


def test_the_constraints_fit_every_platform() -> None:
    exact = versions((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert [name for name, version in exact.items() if version.local] == []
    assert "vitft" not in exact


def test_the_lower_bounds_are_those_of_the_ranges() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "lower_bounds.py")]
    bounds = versions(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ranges = named(PROJECT["dependencies"], *EXTRAS.values())
    with_bound = {name for name, each in ranges.items() if any(part.operator == ">=" for part in each.specifier)}
    assert bounds.keys() == with_bound
    assert [name for name, version in bounds.items() if f">={version}" not in str(ranges[name].specifier)] == []


def test_only_a_next_major_release_is_excluded() -> None:
    caps = [
        (each.name, part.version)
        for each in named(PROJECT["dependencies"], *EXTRAS.values()).values()
        for part in each.specifier
        if part.operator != ">="
    ]
    assert caps == [("transformers", "6")]
