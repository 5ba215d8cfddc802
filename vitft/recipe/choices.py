"""The choices of some recipe keys, for recipe, flags and code; nothing heavy is imported here.

Their meanings are documented at the keys, in ``vitft.recipe.keys``.
"""

from __future__ import annotations

from typing import Literal

BadImages = Literal["stop", "skip"]
"""``data.bad_images``."""

SimilarNames = Literal["stop", "merge", "keep"]
"""``data.similar_names``."""

ResizeMode = Literal["squash", "crop", "pad"]
"""``data.fit``."""

ResizeMethod = Literal["bicubic", "bicubic-plain", "bilinear", "corners", "geometric"]
"""``model.resize_method``: how a position table is interpolated.

- ``bicubic``: antialiased, cell centres aligned; as in timm and DINOv2 with registers.
- ``bicubic-plain``: not antialiased; as in transformers at run time, and in DeiT's code.
- ``bilinear``: not antialiased; as in transformers at run time for BEiT's tables.
- ``corners``: bilinear with the outermost positions aligned; as in the ViT paper's code (``scipy.ndimage.zoom``).
- ``geometric``: for tables of offsets: near offsets keep their meaning in patches, far ones are stretched (BEiT).
"""

Crop = Literal["random-resized", "simple"]
"""``augment.crop``."""

AugmentPolicy = Literal["none", "3-augment", "randaugment", "trivialaugment"]
"""``augment.policy``."""

PositionKind = Literal["learned-1d", "learned-2d", "sincos-2d", "none", "relative"]
"""``model.position.kind``."""

Initialisation = Literal["pretrained", "random"]
"""``model.init``."""

Head = Literal["auto", "keep", "new"]
"""``model.head``."""

PARTS = ("all", "head", "attention", "norms-and-biases", "all-but-embedding", "lora", "dora")
"""``model.train``, beside ``last:N``."""

ADAPTERS = ("lora", "dora")
"""Those of them that add parameters, through peft."""

LoraTargets = Literal["attention", "all-linear"]
"""``model.lora_targets``."""

Precision = Literal["auto", "bf16", "fp16", "fp32"]
"""``train.precision``."""

Recomputed = Literal["off", "half", "blocks"]
"""``train.gradient_checkpointing``."""

Schedule = Literal["cosine", "linear", "constant"]
"""``optim.schedule``."""

Imbalance = Literal["none", "weights", "sqrt-weights", "sampling", "sqrt-sampling", "logit-adjustment"]
"""``train.imbalance``."""

Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow", "comet_ml", "aim", "clearml", "swanlab"]
"""``run.track``."""

HubEvery = Literal["end", "best", "checkpoint"]
"""``hub.every``."""

PictureFormat = Literal["png", "svg", "json"]
"""What ``vitft inspect`` writes: figures, or only the numbers. Not a recipe key."""

AUTO = "auto"
"""``model.checkpoint``: the best of ``model.candidates``."""

CANDIDATES = (
    "google/vit-base-patch16-224-in21k",
    "facebook/dinov2-base",
    "facebook/dinov2-small",
    "google/siglip-base-patch16-224",
)
"""Checkpoints to rank when none are named: pretrained with labels, on images alone, and with captions.

One GPU fine-tunes each of them, and all have the licence apache-2.0.
"""
