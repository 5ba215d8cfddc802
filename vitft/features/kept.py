"""Features from the cache, or computed and stored there."""

from __future__ import annotations

from typing import Any

import torch

from vitft.data.images import ImageSplit
from vitft.features.backbone import Backbone, Stop, Views
from vitft.features.features import Features
from vitft.features.store import FeatureStore


def read_or_compute(
    backbone: Backbone, split: ImageSplit, views: Views, facts: dict[str, Any], stop: Stop | None = None
) -> Features:
    """Return the features of a split: those that are stored, or else computed ones, which are then stored.

    Args:
        backbone: the model.
        split: its images.
        views: what the backbone sees of each.
        facts: what the features of all splits depend on, from :func:`vitft.features.facts.facts_of`.
        stop: requests to stop, if they wait until they are asked for.

    Raises:
        DataError, StopRequest: as :meth:`vitft.features.backbone.Backbone.compute`.
    """
    facts = {"what": f"features of {split.name}", "split": split.name, **views.facts(), **facts}
    accelerator, data, shape = backbone.accelerator, backbone.data, backbone.shape(split, views)
    if data.cache == "off":
        return backbone.compute(split, views, stop)
    limit, model = data.cache_limit.num_bytes, backbone.classifier.name
    with FeatureStore(facts, split, shape, limit, backbone.note, model=model) as store:
        found = store.load()
        missing = torch.tensor([float(found is None)], device=accelerator.device)
        are_all_here = float(accelerator.reduce(missing, "sum")) == 0
        if found is not None and are_all_here:
            backbone.status.say(f"  features of {split.name}: read from the cache")
            return found
        features = backbone.compute(split, views, stop)
        if accelerator.is_local_main_process:
            store.save(features)
    return features
