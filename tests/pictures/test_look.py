"""What is seen of a model, and why the rest cannot be."""

from dataclasses import replace

import pytest
from model import zoo
from pictures.subjects import photos, subject

from vitft.architectures import families
from vitft.errors import UsageError
from vitft.pictures import captions
from vitft.pictures.figures import draw
from vitft.pictures.look import check_kinds, drawable, look


def test_what_was_seen_has_the_numbers_asked_for(seen):
    assert seen.num_images == 5
    assert len(seen.layers) == 3
    assert len(seen.shown) == 2
    first = seen.shown[0]
    assert first.rollout.shape == first.rollout_plain.shape == first.relevance.shape == (4, 4)
    assert first.heads.shape == (2, 4, 4)
    assert first.received.shape == (3, 4, 4)
    assert first.colours.shape == (4, 4, 3)
    assert [len(each.neighbours) for each in seen.shown] == [5, 5]
    assert seen.compared == 7
    assert sum(value for _, value in first.predictions) <= 1


def test_means_are_over_all_images_whatever_is_shown(seen):
    others = look(subject(), ["distance"], photos(5), show=5)
    for one, other in zip(seen.layers, others.layers, strict=True):
        assert one.distance_dropped == pytest.approx(other.distance_dropped, rel=1e-5)


def test_a_model_without_class_token_reads_the_mean_and_says_so():
    found = look(subject("siglip"), ["rollout"], photos(1))
    assert found.reads == "mean"
    assert "mean of the patch tokens" in captions.lines("rollout", [("", found)])[0]


def test_without_a_head_nothing_is_predicted():
    found = look(replace(subject(), has_head=False), ["rollout", "relevance"], photos(1))
    assert found.shown[0].predictions == []
    assert "no trained head" in found.reasons["relevance"]


def test_a_convolutional_model_has_filters_and_a_reason_for_the_rest(tmp_path):
    found = look(subject("resnet"), ["filters", "positions", "distance", "rollout", "tokens"], photos(1))
    assert found.filters is not None
    assert set(found.reasons) == {"positions", "distance", "rollout"}
    assert "convolutions" in found.reasons["distance"]
    assert drawable(zoo.config("resnet")) == ["filters", "tokens", "neighbours"]
    assert draw("rollout", [("", found)], tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("family", ["swin", "hiera", "pvt", "mobilevit"])
def test_where_rollout_is_not_defined_the_reason_is_given(family):
    assert set(drawable(zoo.config(family))).isdisjoint({"rollout", "relevance"})
    assert "distance" in drawable(zoo.config(family))


def test_an_unknown_family_is_drawn_by_what_is_seen_of_it(monkeypatch):
    monkeypatch.delitem(families.FAMILIES, "vit")
    monkeypatch.delitem(families.FAMILIES, "resnet")
    known = look(subject(), ["rollout", "tokens"], photos(2), show=2)
    assert known.shown[0].colours is not None and known.shown[0].rollout is not None and not known.reasons
    without = look(subject("resnet"), ["distance", "rollout", "tokens"], photos(2), show=2)
    assert {kind: reason.startswith("no attention") for kind, reason in without.reasons.items()} == {
        "distance": True, "rollout": True,
    }  # fmt: skip
    assert without.shown[0].colours is not None


def test_no_images_is_a_reason():
    found = look(subject(), ["filters", "rollout"])
    assert found.reasons == {"rollout": "there are no images"}


def test_unknown_kinds_are_listed_with_what_there_is():
    with pytest.raises(UsageError, match="rolout") as raised:
        check_kinds(["filters", "rolout"])
    assert "sinks: attention on" in raised.value.allowed
    assert raised.value.hint == "--only rollout"


def test_kinds_come_in_their_order():
    assert check_kinds(["rollout", "filters"]) == ["filters", "rollout"]
