"""The head of a checkpoint is kept where its classes are the dataset's, and never by number."""

from pathlib import Path

import pytest
import torch
import zoo

from vitft.errors import ModelError
from vitft.model.head import match_classes
from vitft.model.load import load_finished, load_for_training
from vitft.recipe.keys import ModelRecipe

OLD = ["ant", "bee", "cat"]


@pytest.fixture(params=["vit", "resnet", "levit", "swin"])
def trained(request, tmp_path):
    """A checkpoint whose head knows ants, bees and cats."""
    model = zoo.classifier(zoo.config(request.param, num_labels=3))
    model.config.id2label = dict(enumerate(OLD))
    model.config.label2id = {name: number for number, name in enumerate(OLD)}
    for name, parameter in model.named_parameters():
        if 3 in parameter.shape[:1]:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    return zoo.save(model, tmp_path / "trained", request.param)


def logits(model, size):
    torch.manual_seed(0)
    with torch.no_grad():
        return model.eval()(torch.randn(2, 3, *size)).logits


def loaded(folder, classes, head="auto"):
    return load_for_training(ModelRecipe(checkpoint=str(folder), head=head), classes, "squash")


def before(folder):
    finished = load_finished(Path(folder), "mine")
    return logits(finished.model, finished.image_size)


def test_the_same_classes_keep_the_head_in_the_datasets_order(trained):
    again = loaded(trained, ["cat", "ant", "Bee"])
    torch.testing.assert_close(logits(again.model, again.image_size), before(trained)[:, [2, 0, 1]])
    assert again.has_head
    assert "head: kept" in again.notes[-1]


def test_added_classes_begin_at_zero_and_are_named(trained):
    more = loaded(trained, ["ant", "bee", "cat", "dog"])
    now = logits(more.model, more.image_size)
    torch.testing.assert_close(now[:, :3], before(trained))
    assert now[:, 3].eq(0).all()
    assert more.notes[-1].endswith("kept for 3 classes of " + str(trained) + "; new and zero-initialised for dog")


def test_fewer_classes_are_kept_only_when_asked(trained):
    assert logits((new := loaded(trained, ["bee", "dog"])).model, new.image_size).eq(0).all()
    assert not new.has_head
    kept = loaded(trained, ["bee", "dog"], "keep")
    torch.testing.assert_close(logits(kept.model, kept.image_size)[:, 0], before(trained)[:, 1])


def test_a_new_head_can_be_asked_for(trained):
    new = loaded(trained, OLD, "new")
    assert logits(new.model, new.image_size).eq(0).all()
    assert "new head" in new.notes[-1]


def test_keep_without_anything_to_keep_is_an_error(trained):
    with pytest.raises(ModelError, match="knows none of the classes dog") as error:
        loaded(trained, ["dog"], "keep")
    assert error.value.hint == "--set model.head=new"


def test_an_encoder_has_no_head_to_keep(tmp_path):
    encoder = zoo.classifier(zoo.config("vit")).vit
    folder = zoo.save(encoder, tmp_path / "encoder", "vit")
    assert "new head" in loaded(folder, ["LABEL_0", "LABEL_1"]).notes[-1]
    with pytest.raises(ModelError, match="cannot be kept"):
        loaded(folder, ["LABEL_0", "LABEL_1"], "keep")


def test_names_match_exactly_first_and_placeholders_never():
    assert match_classes(["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1"]) == {}
    assert match_classes(["a b", "A b"], ["A b", "a b"]) == {0: 1, 1: 0}
    assert match_classes(["a b", "c"], ["a_b", "a b"]) == {1: 0}  # whichever comes first
    assert match_classes(["Sea Lion", "cat"], ["sea_lion", "dog"]) == {0: 0}
    assert match_classes(["a b", "A b"], ["a_b"]) == {}  # which of the two is not said
    assert match_classes(["twice", "twice"], ["twice"]) == {}
