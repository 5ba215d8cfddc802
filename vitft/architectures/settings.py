"""Read the JSON files of a checkpoint as plain values, before anything acts on them.

A stranger wrote them. Keys that would run code, read other files or change what a model returns are left out;
impossible numbers are errors before anything is built from them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from vitft.errors import ModelError, one_line
from vitft.files import read_regular
from vitft.outside import printable, shortened
from vitft.recipe.sizes import MOST_PIXELS

_LONGEST = 20_000_000  # bytes; ImageNet-21k's class names take 1.5 million
_DEEPEST = 12  # levels of nesting
_MOST_CLASSES = 100_000
_MOST_LAYERS = 200

# Keys that name code, kernels, devices or other files; never followed.
_ELSEWHERE = frozenset({
    "auto_map", "custom_pipelines", "_attn_implementation", "attn_implementation", "_attn_implementation_internal",
    "_experts_implementation", "experts_implementation", "_experts_implementation_internal", "use_kernels",
    "kernel_config", "fusion_config", "transformers_weights", "distributed_config", "device_map", "per_layer_config",
    "base_model_tp_plan", "base_model_pp_plan", "base_model_ep_plan", "base_model_fsdp_plan", "gguf_file",
    "disk_offload_folder",
})  # fmt: skip
# Keys that change what a model returns or computes; vitft sets these itself.
_BEHAVIOUR = frozenset({
    "return_dict", "use_return_dict", "torchscript", "output_attentions", "output_hidden_states",
    "gradient_checkpointing", "is_decoder", "is_encoder_decoder", "add_cross_attention",
    "cross_attention_hidden_size", "pruned_heads", "chunk_size_feed_forward", "tie_last_hidden_states",
    "use_bfloat16", "tie_encoder_decoder", "function_to_apply",
})  # fmt: skip
_SILENT = frozenset({"name_or_path", "_name_or_path", "_commit_hash", "_attn_implementation_autoset", "dtype",
                     "torch_dtype", "use_cache"})  # fmt: skip
_USUAL = {  # harmless values, dropped without a note; for other keys, empty values are
    "return_dict": (True, None),
    "use_return_dict": (True, None),
    "_attn_implementation": (None, "eager", "sdpa"),
    "attn_implementation": (None, "eager", "sdpa"),
}

_LAYERS = r".*layers|n_layer|depths?|.*num_blocks|.*repeats|num_stages|num_query_pool|.*stage_numb?_of_.*"
_BOUNDS = tuple(
    (re.compile(pattern), low, high)
    for pattern, low, high in (
        (r"num_labels|num_classes", 0, _MOST_CLASSES),
        (_LAYERS, 0, _MOST_LAYERS),
        (r"patch_sizes?|patch_strides?|image_sizes?|img_size", 1, MOST_PIXELS),
        (r"num_(attention_)?heads|n_heads?|hidden_sizes?|embed_dims?|hidden_dims?", 1, 1e6),
        (r"depth_coefficient", 0, 16),
        (r".*(dropout|drop_rate|drop_path|dropout_prob|dropout_rate)(_prob|_rate)?s?", 0, 1),
        (r"initializer_range|initializer_factor|init_std|.*init_values?", 0, 1000),
        (r"((image|img|patch|(pretrained_)?window|kernel|input|crop|pad)_?)?(size|stride|kernel)s?", 0, MOST_PIXELS),
        (r"(height|width|shortest_edge|longest_edge|max_height|max_width)", 1, MOST_PIXELS),
        (r"rescale_factor", 1e-12, 1e6),
        (r"image_std", 1e-6, 1e6),
        (r"image_mean", -1e6, 1e6),
        (r"crop_pct", 0.01, 2),
        (r"size_divisor", 1, MOST_PIXELS),
        (r"num_channels|in_chans", 1, 64),
        (r".*", -1e9, 1e9),
    )
)


def read_settings(path: Path, named: str, *, as_stored: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Read a JSON file of a checkpoint.

    Args:
        path: config.json or an image processor's file.
        named: the checkpoint as the user typed it.
        as_stored: leave out only keys that name code or other files; for copying the file.

    Returns:
        The values that are kept, and a note if keys that matter were left out.

    Raises:
        ModelError: if it cannot be read, is not a JSON object, or holds impossible numbers.
    """
    where = f"the {path.name} of {named}"
    try:
        content = json.loads(read_regular(path, _LONGEST), parse_constant=_refuse_constant, parse_int=_short_integer)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{where} cannot be used: {_reason(error)}", hint="download or copy it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{where} cannot be used: it holds a {type(content).__name__}, not a JSON object")
    if content.get("quantization_config"):
        raise ModelError(
            f"{where} describes quantised weights (quantization_config), which cannot be trained",
            allowed="weights in float32, float16 or bfloat16",
            hint="use the checkpoint before quantisation",
        )
    left: set[str] = set()
    without = _ELSEWHERE if as_stored else _ELSEWHERE | _BEHAVIOUR | _SILENT
    kept: dict[str, Any] = _without(content, without, left, 0, where)
    _check_numbers(kept, where)
    _check_labels(kept, where)
    return kept, [f"{path.name}: ignored, because vitft decides it: {', '.join(sorted(left))}"] if left else []


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not allowed as a number")


def _short_integer(digits: str) -> int:
    if len(digits) > 30:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _reason(error: BaseException) -> str:
    return "its values are nested too deeply" if isinstance(error, RecursionError) else one_line(error)


def _without(value: Any, without: Set[str], left: set[str], depth: int, where: str) -> Any:
    """Return a copy without some keys; add those whose value matters to ``left``."""
    if depth > _DEEPEST:
        raise ModelError(f"{where} cannot be used: its values are nested too deeply", hint="use another checkpoint")
    if isinstance(value, list) and len(value) > _MOST_CLASSES:
        raise ModelError(f"{where} cannot be used: a list of {len(value):,} values", hint="use another checkpoint")
    if isinstance(value, list):
        return [_without(each, without, left, depth + 1, where) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, each in value.items():
        if key not in without:
            kept[key] = _without(each, without, left, depth + 1, where)
        elif key not in _SILENT and each not in _USUAL.get(key, (None, False, 0, "", {}, [])):
            left.add(key)
    return kept


def _check_numbers(values: dict[str, Any], where: str) -> None:
    """Reject a number that no model can have for its key."""
    layers = 0
    for dotted, key, number in _numbers(values, "", ""):
        pattern, low, high = next(each for each in _BOUNDS if each[0].fullmatch(key))
        if not (math.isfinite(number) and low <= number <= high):
            raise ModelError(
                f"{where} says {printable(shortened(dotted, 100))}: {number:g}",
                allowed=f"{low:g} to {high:,.15g}",
                hint="fix the file, or use another checkpoint",
            )
        layers += int(number) if pattern.pattern == _LAYERS else 0
    if layers > 2 * _MOST_LAYERS:
        raise ModelError(f"{where} describes {layers:,} layers", allowed=f"at most {2 * _MOST_LAYERS:,} in total")


def _numbers(value: Any, dotted: str, key: str) -> Iterator[tuple[str, str, float]]:
    """Yield (dotted path, key, number) for every number in nested values."""
    if isinstance(value, dict):
        for name, each in value.items():
            # A numeric name is the index of a class or layer; the real key is its parent.
            inner = key if name.isdigit() else name
            yield from _numbers(each, f"{dotted}.{name}" if dotted else name, inner)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each, dotted, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield dotted, key, value


def _check_labels(values: dict[str, Any], where: str) -> None:
    """Reject class names that are not names by number."""
    names = values.get("id2label")
    if names is None:
        return
    if not isinstance(names, dict) or len(names) > _MOST_CLASSES:
        count = f"{len(names):,} classes" if isinstance(names, dict) else f"a {type(names).__name__} of classes"
        raise ModelError(f"{where} has {count}", allowed=f"id2label with at most {_MOST_CLASSES:,} names by number")
    for number, name in names.items():
        if not re.fullmatch(r"\d{1,9}", number) or not isinstance(name, str | int | float) or len(str(name)) > 1000:
            said = f"{number!r}: {shortened(repr(name), 60)}"
            raise ModelError(f"{where} has a class {said}", allowed='numbers with names, such as {"0": "cat"}')
