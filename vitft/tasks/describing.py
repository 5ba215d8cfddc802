"""What a dataset is taken for, before anything is done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitft.libraries import quiet_libraries
from vitft.recipe.keys import DataRecipe

if TYPE_CHECKING:
    from vitft.reading.overview import Overview


def describe(dataset: str | DataRecipe, *, seed: int = 0) -> Overview:
    """Read a dataset as training would, and return what was made of it.

    Args:
        dataset: what ``--dataset`` takes, or a recipe's data section.
        seed: the run's seed, by which validation images are chosen.

    Raises:
        DataError: if it cannot be read, or can be read in two ways.
    """
    from vitft.reading.overview import overview_of
    from vitft.reading.source import open_source

    quiet_libraries()
    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    return overview_of(open_source(data, seed=seed))
