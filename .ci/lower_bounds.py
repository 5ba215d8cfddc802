"""Print the lower bounds of pyproject.toml as pip constraints: ``torch>=2.11`` becomes ``torch==2.11``."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"].values()
bounds = dict(
    match.groups()
    for requirement in [*project["dependencies"], *(each for extra in extras for each in extra)]
    if (match := re.match(r"([\w.-]+)>=([\w.]+)", requirement))
)
print("\n".join(f"{name}=={version}" for name, version in bounds.items()))
