"""What some keys of a recipe may be, spelled once for recipe, flags and code; nothing heavy is imported here.

What a choice means is said at its key, in ``vitft.recipe.keys``.
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
"""``model.resize_method``: how the values of a position table between its places are found.

- ``bicubic``: antialiased, cell centres aligned; timm's and DINOv2-with-registers' way.
- ``bicubic-plain``: not antialiased; equals what transformers does at run time, and DeiT's code.
- ``bilinear``: not antialiased; equals what transformers does to BEiT's tables at run time.
- ``corners``: bilinear with the outermost places aligned; equals the ViT paper's code (``scipy.ndimage.zoom``).
- ``geometric``: for tables of offsets: near offsets keep their meaning in patches, far ones are stretched (BEiT).
"""

PositionKind = Literal["learned-1d", "learned-2d", "sincos-2d", "none", "relative"]
"""``model.position.kind``."""

Initialisation = Literal["pretrained", "random"]
"""``model.init``."""

Head = Literal["auto", "keep", "new"]
"""Whether the checkpoint's head is kept: where its classes are the dataset's, where any is, or never."""

Precision = Literal["auto", "bf16", "fp16", "fp32"]
"""``train.precision``."""

Schedule = Literal["cosine", "linear", "constant"]
"""``optim.schedule``."""

Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow", "comet_ml", "aim", "clearml", "swanlab"]
"""``run.track``."""

HubEvery = Literal["end", "best", "checkpoint"]
"""``hub.every``."""

PictureFormat = Literal["png", "svg", "json"]
"""What ``vitft inspect`` writes: figures, or the numbers alone. No key of a recipe."""
