"""What the bits of features depend on, besides the images."""

from __future__ import annotations

import hashlib
from importlib import metadata
from typing import Any

import torch

from vitft.architectures.blocks import is_within
from vitft.data.images import ImageSource
from vitft.features.backbone import Backbone
from vitft.model.classifier import Classifier
from vitft.recipe.sizes import show_size


def facts_of(backbone: Backbone, source: ImageSource) -> dict[str, Any]:
    """Return everything that the features of a dataset depend on, but for split and views."""
    return facts_about(backbone.classifier, backbone.read.module, _conditions(backbone, source))


def facts_about(classifier: Classifier, module: str, conditions: dict[str, Any]) -> dict[str, Any]:
    """Return what features depend on, as far as it is not the images: the frozen weights, the versions, the machine.

    Args:
        classifier: the model.
        module: the module whose input the features are; its own weights do not matter.
        conditions: precision, device, processes and the like.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(classifier.model.state_dict().items()):
        if not is_within(name, [module]):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    unimportant = ("_name_or_path", "transformers_version", "id2label", "label2id")
    config = {key: value for key, value in classifier.config.to_dict().items() if key not in unimportant}
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "pillow")}
    return {"module": module, "weights": digest.hexdigest(), "config": config, "versions": versions, **conditions}


def _conditions(backbone: Backbone, source: ImageSource) -> dict[str, Any]:
    """Return what the bits of features depend on, besides the model."""
    classifier, data, accelerator = backbone.classifier, backbone.data, backbone.accelerator
    return {
        "dataset": source.id,
        "fingerprint": source.fingerprint,
        "image_size": show_size(classifier.image_size),
        "processor": classifier.processor.to_dict(),
        "fit": data.fit,
        "white_level": source.white_level,
        "max_pixels": data.max_pixels,
        "bad_images": data.bad_images,
        "precision": {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision),
        "device": accelerator.device.type,
        "processes": accelerator.num_processes,
        "batch_size": backbone.batch_size,
        "threads": torch.get_num_threads(),
    }
