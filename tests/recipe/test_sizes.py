"""Image sizes: how they are read, shown and kept in recipes."""

import pytest

from vitft.errors import RecipeError
from vitft.recipe.recipe import Recipe
from vitft.recipe.sizes import parse_size, show_size
from vitft.recipe.yaml12 import parse_yaml


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (384, (384, 384)), ("384", (384, 384)), ("384x512", (384, 512)), ("384X512", (384, 512)),
        (" 384 x 512 ", (384, 512)), ([384, 512], (384, 512)), ((512, 384), (512, 384)),
        (1, (1, 1)), (4096, (4096, 4096)), ("1x4096", (1, 4096)),
    ],
)  # fmt: skip
def test_sizes_are_height_by_width(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value",
    ["abc", "384x", "x384", "384x512x3", "384,512", "-384", "384.0", "1e2", "", " ", True, False, 384.0, None,
     [], [384], [384, 512, 3], [384, "512"], [384.0, 512], [384, True], {"height": 384, "width": 384}],
    ids=repr,
)  # fmt: skip
def test_what_is_no_size_is_refused_with_the_two_forms(value):
    with pytest.raises(ValueError, match="is not an image size; write 384, or 384x512 for height x width") as caught:
        parse_size(value)
    assert str(caught.value).startswith(repr(value))


@pytest.mark.parametrize(
    "value", [0, -1, -384, 4097, 10**6, "0", "0x384", "384x0", "4097x1", "1000000", [0, 384], [384, -1], (1, 4097)]
)
def test_a_side_that_no_image_has_is_refused_with_the_bounds(value):
    with pytest.raises(ValueError, match="is not between 1 and 4096 pixels per side") as caught:
        parse_size(value)
    assert str(value) in str(caught.value)


def test_sizes_are_shown_as_they_are_read():
    assert show_size((384, 512)) == "384x512"
    assert show_size((224, 224)) == "224x224"
    assert parse_size(show_size((384, 512))) == (384, 512)


@pytest.mark.parametrize(
    ("given", "size", "written"),
    [
        (384, (384, 384), 384),
        ("384", (384, 384), 384),
        ("384x512", (384, 512), "384x512"),
        ([384, 512], (384, 512), "384x512"),
        ([384, 384], (384, 384), 384),
    ],
)
def test_a_recipe_keeps_its_image_size(tmp_path, given, size, written):
    recipe = Recipe.load(None, {"model.image_size": given})
    assert recipe.model.image_size == size
    dumped = recipe.dump()
    assert parse_yaml(dumped, "the dump")["model"]["image_size"] == written
    (tmp_path / "recipe.yaml").write_text(dumped)
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert Recipe.model_validate(recipe.model_dump()) == recipe


@pytest.mark.parametrize("written", ["384x512", "'384x512'", "[384, 512]", '"384 x 512"'])
def test_a_recipe_file_may_write_a_size_in_every_form(tmp_path, written):
    (tmp_path / "r.yaml").write_text(f"model: {{image_size: {written}}}\n")
    assert Recipe.load(tmp_path / "r.yaml").model.image_size == (384, 512)


def test_recipes_of_different_sizes_differ():
    one, other = (Recipe.load(None, {"model.image_size": size}) for size in ("384x512", "512x384"))
    assert one != other
    assert one.differences(other) == ["model.image_size: 384x512 -> 512x384"]


def test_without_a_size_the_checkpoints_own_stays(tmp_path):
    (tmp_path / "recipe.yaml").write_text(Recipe().dump())
    assert Recipe().model.image_size is None
    assert Recipe.load(tmp_path).model.image_size is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("384x", "'384x' is not an image size; write 384, or 384x512 for height x width"),
        (True, "True is not an image size; write 384, or 384x512 for height x width"),
        (0, "an image size of 0 is not between 1 and 4096 pixels per side"),
    ],
)
def test_a_recipe_with_a_wrong_size_names_the_key(value, says):
    with pytest.raises(RecipeError) as caught:
        Recipe.load(None, {"model.image_size": value})
    assert str(caught.value).splitlines()[:2] == ["the recipe has 1 error:", f"  model.image_size: {says}"]
