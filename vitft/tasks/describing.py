"""Show how a dataset is read, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitft.libraries import quiet_libraries
from vitft.recipe.keys import DataRecipe

if TYPE_CHECKING:
    from vitft.reading.overview import Overview


def describe(dataset: str | DataRecipe, *, seed: int = 0) -> Overview:
    """Read a dataset as training would, and return a summary of splits and classes.

    Args:
        dataset: a value of ``--dataset``, or a recipe's data section.
        seed: the run's seed, which decides on the validation images.

    Raises:
        DataError: if the dataset cannot be read, or in more than one way.
    """
    from vitft.reading.overview import overview_of
    from vitft.reading.source import open_source

    quiet_libraries()
    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    return overview_of(open_source(data, seed=seed))
