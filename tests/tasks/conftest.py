import pytest

from vitft import Recipe, finetune

TINY = {
    "data.max_train_samples": 200, "train.duration": "2 epochs", "train.batch_size": 32, "optim.lr": 2e-3,
    "model.checkpoint": "builtin:vit-micro",
}  # fmt: skip


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of a few seconds on digits."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = Recipe.load("quickstart", {**TINY, "run.output_dir": str(folder), "run.track": ["tensorboard"]})
    return finetune(recipe)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Test digits as files in class folders."""
    from vitft.builtin.digits import load_digits

    folder = tmp_path_factory.mktemp("digits")
    for number, row in enumerate(load_digits()["test"].select(range(40))):
        place = folder / "test" / str(row["label"])
        place.mkdir(parents=True, exist_ok=True)
        row["image"].convert("RGB").save(place / f"{number}.png")
    return folder
