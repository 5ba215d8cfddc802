"""Write a checkpoint at another size."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitft.libraries import quiet_libraries
from vitft.notebook import ShownAsText
from vitft.recipe.choices import ResizeMethod
from vitft.tasks.ending import explained


@dataclass
class ResizeResult(ShownAsText):
    """A resized checkpoint.

    Attributes:
        folder: the new checkpoint.
        record: the changes, as in its ``resize.json``.
        lines: the same as sentences.
    """

    folder: Path
    record: dict[str, Any]
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([*self.lines, f"checkpoint: {self.folder}"])


@explained()
def resize(
    model: str | Path,
    out: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    patch_size: int | None = None,
    window_size: int | None = None,
    method: ResizeMethod = "bicubic",
    revision: str | None = None,
) -> ResizeResult:
    """Write a checkpoint at another size, which plain transformers can run.

    Args:
        model: folder, run directory or Hub id.
        out: the new folder.
        image_size: (height, width) in pixels.
        patch_size: side of a patch in pixels.
        window_size: side of an attention window in patches (Swin).
        method: how position tables are resampled: ``bicubic``, ``bicubic-plain``, ``bilinear``, ``corners`` or
            ``geometric``.
        revision: branch, tag or commit of a Hub model.

    Raises:
        ModelError: if the model cannot have that size, does not fit its own config, or cannot be written.
    """
    from vitft.model.locate import locate
    from vitft.model.rewrite import rewrite_checkpoint
    from vitft.resolution.retarget import Target

    quiet_libraries(with_datasets=False)
    folder, _ = locate(str(model), revision)
    target = Target(image_size, patch_size, window_size, method)
    done, notes = rewrite_checkpoint(folder, str(model), Path(out), target)
    return ResizeResult(Path(out), done.record(), [f"family {done.family}", *done.lines(), *notes])
