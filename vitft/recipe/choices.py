"""What some keys of a recipe may be, spelled once for recipe, flags and code; nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal

BadImages = Literal["stop", "skip"]
"""An image that cannot be decoded ends the run, or is passed over, counted and listed."""

ResizeMode = Literal["squash", "crop", "pad"]
"""How an image fills the model's rectangle: distorted, centre-cropped, or letterboxed."""

ResizeMethod = Literal["bicubic", "bicubic-plain", "bilinear", "corners", "geometric"]
"""How the values of a position table between its places are found.

- ``bicubic``: antialiased, cell centres aligned; timm's and DINOv2-with-registers' way.
- ``bicubic-plain``: not antialiased; equals what transformers does at run time, and DeiT's code.
- ``bilinear``: not antialiased; equals what transformers does to BEiT's tables at run time.
- ``corners``: bilinear with the outermost places aligned; equals the ViT paper's code (``scipy.ndimage.zoom``).
- ``geometric``: for tables of offsets: near offsets keep their meaning in patches, far ones are stretched (BEiT).
"""

PositionKind = Literal["learned-1d", "learned-2d", "sincos-2d", "none", "relative"]
"""Another position encoding than the checkpoint's (ViT, arXiv:2010.11929, appendix D.4)."""

Initialisation = Literal["pretrained", "random"]
"""Start from the checkpoint's weights, or only from its architecture."""

Precision = Literal["auto", "bf16", "fp16", "fp32"]
"""Number format of the forward pass; weights are always kept in float32."""

Schedule = Literal["cosine", "linear", "constant"]
"""Course of the learning rate after the warmup."""

HubEvery = Literal["end", "best", "checkpoint"]
"""What is pushed during training, in the background: nothing, each best model, or each checkpoint."""
