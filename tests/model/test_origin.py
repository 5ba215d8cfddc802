"""What a model card says of where its model comes from, and what of that another card may repeat."""

from pathlib import Path

import pytest

from vitft.model.origin import Origin, read_origin


def write(folder: Path, *lines: str) -> Path:
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", "# a model"]), encoding="utf-8")
    return folder


def test_a_local_model_hands_on_its_base_and_licence(tmp_path):
    folder = write(tmp_path, "license: mit", "base_model: acme/vit")
    assert read_origin(folder, "./here", is_on_hub=False) == Origin("acme/vit", {"license": "mit"})
    assert read_origin(folder, "acme/tiny", is_on_hub=True) == Origin("acme/tiny", {"license": "mit"})


@pytest.mark.parametrize("base", ["/home/ada/vit", "./vit", "runs/x/model", "~/vit", "", "[a/b, c/d]", "null"])
def test_a_base_that_is_no_id_on_the_hub_is_not_handed_on(base, tmp_path):
    assert read_origin(write(tmp_path, f"base_model: {base}"), "./here", is_on_hub=False).base is None


def test_a_licence_file_of_another_repository_is_linked_there(tmp_path):
    folder = write(tmp_path, "license: other", "license_name: acme", "license_link: LICENSE.md")
    licence = read_origin(folder, "acme/vit", is_on_hub=True).license
    assert licence["license_link"] == "https://huggingface.co/acme/vit/blob/main/LICENSE.md"
    write(tmp_path, "license: other", "license_link: https://acme.example/terms")
    assert read_origin(folder, "acme/vit", is_on_hub=True).license["license_link"] == "https://acme.example/terms"


@pytest.mark.parametrize("text", ["", "# no metadata", "---\nlicense: mit", "---\n: [\n---", "---\n- a\n---"])
def test_a_card_that_cannot_be_read_says_nothing(text, tmp_path):
    (tmp_path / "README.md").write_text(text)
    assert read_origin(tmp_path, "./here", is_on_hub=False) == Origin()


@pytest.mark.parametrize("text", ["[" * 5000, "a: " + "9" * 5000, "a: !!timestamp x", "&a [*a]", "{[a]: 1}"])
def test_a_card_that_attacks_its_reader_says_nothing(text, tmp_path):
    assert read_origin(write(tmp_path, "license: mit", text), "./here", is_on_hub=False).license == {}
