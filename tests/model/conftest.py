import pytest
import zoo


@pytest.fixture
def folder(tmp_path):
    """A tiny ViT with 5 classes."""
    zoo.save(zoo.classifier(zoo.config("vit")), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"
