"""Where a checkpoint is, and what of the Hub's is downloaded."""

import pytest

from vitft.errors import ModelError
from vitft.model.load import load_for_training
from vitft.model.locate import locate
from vitft.recipe.keys import ModelRecipe

CLASSES = ["ant", "bee", "cat"]


def loaded(folder, fit="squash", **recipe):
    return load_for_training(ModelRecipe(checkpoint=str(folder), **recipe), CLASSES, fit)


def test_a_run_directory_stands_for_its_model(folder, tmp_path):
    folder.rename(tmp_path / "model")
    assert locate(str(tmp_path)) == (tmp_path / "model", None)


@pytest.mark.parametrize(
    ("name", "said"),
    [("./nowhere", "does not exist"), ("/no/such/folder", "does not exist"), ("a/b/c", "does not exist"),
     ("builtin:vit-huge", "builtin:vit-micro")],
)  # fmt: skip
def test_what_is_not_there_is_a_clear_error(name, said):
    with pytest.raises(ModelError, match=said):
        locate(name)


def test_a_file_is_no_checkpoint(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match="is a file"):
        locate(str(tmp_path / "model.safetensors"))


def test_of_a_hub_checkpoint_only_what_is_read_is_downloaded(folder, monkeypatch):
    names = ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin",
             "tf_model.h5", "onnx/model.onnx", "calibration.json"]  # fmt: skip
    asked = {}

    class Hub:
        def model_info(self, repo, **_):
            siblings = [type("Sibling", (), {"rfilename": name}) for name in names]
            return type("Info", (), {"sha": "abc", "siblings": siblings})

    def snapshot_download(repo, revision, allow_patterns):
        asked.update(repo=repo, revision=revision, files=set(allow_patterns) & set(names))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    pretrained = loaded("someone/something")
    assert pretrained.name == "someone/something" and pretrained.revision == "abc"
    assert asked == {"repo": "someone/something", "revision": "abc",
                     "files": {"config.json", "preprocessor_config.json", "model.safetensors",
                               "calibration.json"}}  # fmt: skip
