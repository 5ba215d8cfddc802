"""Amounts of data: how they are read and written."""

import pytest

from vitft.errors import RecipeError
from vitft.recipe.amounts import Amount
from vitft.recipe.recipe import RESUMABLE_CHANGES, Recipe


@pytest.mark.parametrize(
    ("text", "canonical", "num_bytes"),
    [
        ("20 GB", "20 GB", 20 * 10**9),
        (" 1.5tb ", "1.5 TB", 1_500_000_000_000),
        ("500MB", "500 MB", 5 * 10**8),
        ("0 GB", "0 GB", 0),
        ("0.000001 GB", "0.000001 GB", 1000),
    ],
)
def test_amounts_are_read_and_written(text, canonical, num_bytes):
    found = Amount.parse(text)
    assert (str(found), found.num_bytes) == (canonical, num_bytes)
    assert Amount.parse(canonical) == found


@pytest.mark.parametrize("text", ["20", 20, "GB", "-1 GB", "1e3 GB", "20 GiB", "", None, "1" * 5000 + " GB"])
def test_what_is_no_amount_is_refused_in_few_words(text):
    with pytest.raises(ValueError, match="is not an amount of data; write a number and unit: 500 MB") as error:
        Amount.parse(text)
    assert len(str(error.value)) < 300


def test_a_recipe_keeps_its_amount_and_a_resumed_run_may_change_it():
    recipe = Recipe.load(None, {"data.cache_limit": "1.5 TB"})
    assert Recipe.model_validate(recipe.model_dump(mode="json")).data.cache_limit == Amount(1.5, "TB")
    with pytest.raises(RecipeError, match="cache_limit: '20 cows' is not an amount of data"):
        Recipe.load(None, {"data.cache_limit": "20 cows"})
    assert {"data.cache", "data.cache_limit"} <= RESUMABLE_CHANGES
