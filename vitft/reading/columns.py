"""Find the columns of images and labels: the user's choice first, then by type, then by content."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import datasets

from vitft.data.images import resolve_path
from vitft.errors import DataError, did_you_mean
from vitft.files import is_file
from vitft.reading.listing import is_image_name
from vitft.reading.words import LABEL_WORDS, is_label_name, is_measure, is_split_name, rank

LOOKED_AT = 5  # rows inspected to find out what a column holds
_IMAGE_WORDS = ("image", "img", "jpg", "jpeg", "png", "webp", "photo", "picture", "file_name")


def describe_columns(features: Mapping[str, Any]) -> str:
    """Return the columns with their types, to list in an error."""
    return ", ".join(f"{name} ({_type_name(feature)})" for name, feature in features.items()) or "none"


def flat_features(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the features by name; those inside a structure are named ``outer.inner`` (``json.label``)."""
    flat: dict[str, Any] = {}
    for name, feature in features.items():
        if isinstance(feature, dict) and not _is_encoded_struct(feature):
            flat |= {f"{name}.{inner}": kind for inner, kind in flat_features(feature).items()}
        else:
            flat[name] = feature
    return flat


def find_image_columns(
    features: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    wanted: str | None,
    folders: Sequence[str],
    are_parts: Callable[[Sequence[str]], bool] = lambda _: False,
) -> tuple[tuple[str, ...], list[str]]:
    """Return the image column (several if each row fills exactly one), and a note if there was a choice.

    Args:
        features: the columns' types.
        rows: the first few rows, images undecoded.
        wanted: the column that the user asked for.
        folders: where relative paths may start from.
        are_parts: tells whether each row fills exactly one of some columns.

    Raises:
        DataError: if no column holds images, or the requested one does not.
    """
    if wanted is not None:
        require_column(features, wanted, "data.image_column")
        if not _holds_images(features[wanted], [row[wanted] for row in rows], folders):
            raise DataError(
                f"the column {wanted!r} ({_type_name(features[wanted])}) holds no images",
                allowed="a column of type Image, of encoded bytes, or of paths to image files",
                hint=f"choose another: {describe_columns(features)}",
            )
        return (wanted,), []
    found = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    why = "the first of type Image"
    if not found:
        found = [
            name for name, feature in features.items()
            if _holds_images(feature, [row.get(name) for row in rows], folders)
        ]  # fmt: skip
        why = "it contains images"
    if not found:
        raise DataError(
            "the dataset has no image column" + _missing_files(features, rows, folders),
            allowed=f"a column of type Image, of encoded bytes, or of paths to image files; "
            f"it has: {describe_columns(features)}",
            hint="--set data.image_column=NAME, or use another dataset",
        )
    found.sort(key=lambda name: rank(name, _IMAGE_WORDS))  # stable: unknown names keep their order
    notes = []
    if len(found) > 1 and are_parts(found):
        return tuple(found), [f"image columns: {', '.join(found)}; each row fills one of them"]
    if len(found) > 1:
        notes = [f"image column: {found[0]}; {_left('data.image_column', found[1:])}"]
    elif why != "the first of type Image":
        notes = [f"image column: {found[0]}, because {why}"]
    return (found[0],), notes


def find_label_column(
    features: Mapping[str, Any],
    image_column: str,
    wanted: str | None,
    *,
    split_column: str | None = None,
    is_whole: Callable[[str], bool] = lambda _: False,
    is_one_hot: Callable[[Sequence[str]], bool] = lambda _: False,
) -> tuple[str, list[str]]:
    """Return the label column (``outer.inner`` inside a structure), and a note if there was a choice.

    A ClassLabel comes first (the one with the most classes if there are several); then a text or integer column
    named like a label; then the only text or integer column that is not named like a measure or a comment.

    Args:
        features: the columns' types.
        image_column: the image column.
        wanted: the column that the user asked for.
        split_column: the split column, which is not a label.
        is_whole: tells whether a column of floats holds only whole numbers.
        is_one_hot: tells whether columns of numbers hold a single 1 in each row, and otherwise 0.

    Raises:
        DataError: if no column can be the label, if it is unclear which one is, or if an image has several labels.
    """
    flat = flat_features({name: feature for name, feature in features.items() if name != image_column})
    if wanted is not None:
        return _wanted_label(flat, wanted), []
    flat.pop(split_column or "", None)
    labelled = {name: feature for name, feature in flat.items() if isinstance(feature, datasets.ClassLabel)}
    if labelled:
        first, *others = sorted(labelled, key=lambda name: -labelled[name].num_classes)
        if not others:
            return first, []
        left = ", ".join(f"{name} ({labelled[name].num_classes})" for name in others)
        return first, [
            f"label column: {first}, the one with the most classes ({labelled[first].num_classes}); "
            f"not used: {left}; to switch: --set data.label_column={others[0]}"
        ]
    plain = [
        name for name, feature in flat.items()
        if not name.startswith("__")
        and (_is_plain(feature) or (_is_plain(feature, floats=True) and is_label_name(name) and is_whole(name)))
    ]  # fmt: skip
    named = sorted((name for name in plain if is_label_name(name)), key=lambda name: rank(_leaf(name), LABEL_WORDS))
    lists = [name for name, feature in flat.items() if _is_list(feature)]
    several = [name for name in lists if _is_class_list(flat[name]) or is_label_name(name)]
    if named:
        note = f"label column: {named[0]} ({_type_name(flat[named[0]])}), by its name"
        return named[0], [note + (f"; {_left('data.label_column', named[1:])}" if named[1:] else "")]
    plain = [name for name in plain if not is_measure(name) and not is_split_name(name)]
    if several:
        raise _several_labels(several[0], flat[several[0]], plain)
    if len(plain) == 1:
        return plain[0], [
            f"label column: {plain[0]} ({_type_name(flat[plain[0]])}), the only one with text or integers"
        ]
    numbers = [name for name, feature in flat.items() if _is_plain(feature, floats=True) and not is_measure(name)]
    hot = [name for name in numbers if flat[name].dtype not in ("string", "large_string")]
    if len(hot) > 1 and is_one_hot(hot):
        return ",".join(hot), [f"labels: a column of 0 and 1 for each of {len(hot)} classes ({', '.join(hot[:8])})"]
    raise DataError(
        "the dataset has no label column" if not plain else "it is unclear which column is the label",
        allowed=f"a ClassLabel, text or integer column; it has: {describe_columns(features)}",
        hint="--set data.label_column=NAME, or use another dataset",
    )


def _wanted_label(flat: Mapping[str, Any], wanted: str) -> str:
    """Return the column that the user asked for, if it can hold labels."""
    require_column(flat, wanted, "data.label_column")
    if _is_list(flat[wanted]):
        raise _several_labels(wanted, flat[wanted], [])
    if not (isinstance(flat[wanted], datasets.ClassLabel) or _is_plain(flat[wanted], floats=True)):
        raise DataError(
            f"the column {wanted!r} ({_type_name(flat[wanted])}) cannot be the label",
            allowed="a ClassLabel, text or integer column",
            hint=f"choose another: {describe_columns(flat)}",
        )
    return wanted


def require_column(features: Mapping[str, Any], name: str, key: str) -> None:
    """Raise a DataError listing the columns unless ``name`` is one of them."""
    if name in features:
        return
    guess = did_you_mean(name, features)
    raise DataError(
        f"the dataset has no column {name!r}" + (f"; did you mean {guess!r}?" if guess else ""),
        allowed=describe_columns(features),
        hint=f"--set {key}={guess or 'NAME'}",
    )


def _holds_images(feature: Any, values: Iterable[Any], folders: Sequence[str]) -> bool:
    if isinstance(feature, datasets.Image) or _is_encoded_struct(feature):
        return True
    kind = getattr(feature, "dtype", None)
    present = [value for value in values if value is not None]
    if kind in ("string", "large_string"):
        return any(is_image_name(value) and is_file(resolve_path(value, folders)) for value in present)
    return kind in ("binary", "large_binary") and any(_is_image(value) for value in present)


def _is_image(content: bytes) -> bool:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)):
            return True
    except Exception:  # on a broken header, Pillow's plugins may raise anything
        return False


def _missing_files(features: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], folders: Sequence[str]) -> str:
    for name, feature in features.items():
        if getattr(feature, "dtype", None) in ("string", "large_string"):
            for value in (row[name] for row in rows if row.get(name)):
                if value.startswith(("http://", "https://")) and is_image_name(value.split("?")[0]):
                    return f": {name!r} holds URLs such as {value}; download them first"
                if is_image_name(value):
                    return f": {name!r} names image files, but {resolve_path(value, folders)} does not exist"
    return ""


def _is_encoded_struct(feature: Any) -> bool:
    """Return whether this is an Image column that lost its type, as happens in parquet files written by pandas."""
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _is_plain(feature: Any, *, floats: bool = False) -> bool:
    kind = str(getattr(feature, "dtype", "")) if isinstance(feature, datasets.Value) else ""
    return kind in ("string", "large_string", "bool") or kind.startswith(("int", "uint") + ("float",) * floats)


def _is_list(feature: Any) -> bool:
    return isinstance(feature, list) or type(feature).__name__ in ("List", "LargeList", "Sequence")


def _is_class_list(feature: Any) -> bool:
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    return isinstance(inner, datasets.ClassLabel)


def _several_labels(name: str, feature: Any, plain: Sequence[str]) -> DataError:
    return DataError(
        f"the column {name!r} ({_type_name(feature)}) holds several labels per image; vitft supports one",
        allowed="one label per image: a ClassLabel, text or integer column",
        hint=f"--set data.label_column={plain[0]}" if plain else "add a column with one label for each image",
    )


def _leaf(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _left(key: str, others: Sequence[str]) -> str:
    return f"not used: {', '.join(others)}; to switch: --set {key}={others[0]}"


def _type_name(feature: Any) -> str:
    if isinstance(feature, datasets.ClassLabel):
        return f"ClassLabel of {feature.num_classes}"
    if isinstance(feature, datasets.Value):
        return str(feature.dtype)
    if _is_list(feature):
        inner = feature[0] if isinstance(feature, list) else feature.feature
        return f"list of {_type_name(inner)}"
    if isinstance(feature, dict):
        return f"structure of {', '.join(feature)}"
    return type(feature).__name__
