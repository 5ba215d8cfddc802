"""The peer: transformers' Trainer, fine-tuning the same checkpoint on the same images.

torchvision does not load beside every torch, so the peer's crop, flip and normalisation are written with Pillow and
numpy, as transformers' example does them with torchvision: RandomResizedCrop and flip on the decoded photo.
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset


def random_crop(image: Image.Image, size: int, scale: tuple[float, float], rng: random.Random) -> Image.Image:
    """RandomResizedCrop as torchvision defines it: ten tries, then a centre crop."""
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h))
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


class PeerImages(Dataset[dict[str, Any]]):
    """Decoded, cropped, flipped and normalised one by one, as the example script does."""

    def __init__(
        self, rows: Any, labels: np.ndarray, processor: Any, *, train: bool, scale: tuple[float, float]
    ) -> None:
        self.rows, self.labels, self.processor, self.train, self.scale = rows, labels, processor, train, scale

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.rows[index]["image"].convert("RGB")
        if not self.train:
            pixels = self.processor(image, return_tensors="pt")["pixel_values"][0]
            return {"pixel_values": pixels, "labels": int(self.labels[index])}
        rng = random.Random(torch.initial_seed() + random.getrandbits(32))
        image = random_crop(image, self.processor.size["height"], self.scale, rng)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = (np.asarray(image, np.float32) / 255 - self.processor.image_mean) / self.processor.image_std
        return {
            "pixel_values": torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)),
            "labels": int(self.labels[index]),
        }


def train_with_trainer(
    splits: Any,
    checkpoint: str,
    output: Path,
    *,
    epochs: float,
    batch_size: int,
    lr: float,
    seed: int,
    scale: tuple[float, float] = (0.5, 1.0),
    workers: int = 0,
    max_steps: int = -1,
    score: bool = True,
    zero_head: bool = False,
    tuned: bool = False,
    frozen: bool = False,
) -> dict[str, float]:
    """Fine-tune with Trainer; return test accuracy and the images per second of the training itself.

    Args:
        splits: a DatasetDict with ``train`` and ``test``, columns ``image`` and ``label``.
        checkpoint: folder of the pretrained model.
        output: where Trainer may write.
        epochs, batch_size, lr, seed: the settings that are shared; AdamW, cosine, 10 % warmup, clipping at 1.
        scale: area of the random crop.
        workers: of the data loader.
        max_steps: for timing.
        score: evaluate on the test split.
        zero_head: start from a zero head, as vitft does, instead of transformers' random one.
        tuned: what a user who reads the guide would switch on: bf16, TF32, fused AdamW, compiling.
        frozen: train the head alone.
    """
    from transformers import TrainingArguments

    model, data = _prepared(splits, checkpoint, seed, scale, zero_head=zero_head)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith("classifier."))
    faster = {"bf16": True, "tf32": True, "optim": "adamw_torch_fused", "torch_compile": True} if tuned else {}
    arguments = TrainingArguments(
        **faster,
        output_dir=str(output), num_train_epochs=epochs, max_steps=max_steps, per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=32, learning_rate=lr, weight_decay=0.05, warmup_steps=0.1,
        lr_scheduler_type="cosine",
        max_grad_norm=1.0, seed=seed, save_strategy="no", report_to=[], remove_unused_columns=False,
        dataloader_num_workers=workers, disable_tqdm=True, logging_strategy="no", use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    trainer = _trainer(model, arguments, data)
    start = time.perf_counter()
    steps = trainer.train().global_step
    seconds = time.perf_counter() - start
    result = {"seconds": seconds, "images_per_second": steps * batch_size / seconds}
    if score:
        result["top1"] = trainer.evaluate(data["test"])["eval_top1"]
    return result


def trainer_curve(
    splits: Any, checkpoint: str, output: Path, *, epochs: int, seed: int, zero_head: bool = False
) -> list[dict[str, float]]:
    """Fine-tune with Trainer by the defaults of transformers' example; return test top-1 and seconds after each epoch.

    Args:
        splits, checkpoint, output, seed, zero_head: as for :func:`train_with_trainer`.
        epochs: passes over the training images.
    """
    from transformers import TrainerCallback, TrainingArguments

    model, data = _prepared(splits, checkpoint, seed, (0.08, 1.0), zero_head=zero_head)
    arguments = TrainingArguments(
        output_dir=str(output), num_train_epochs=epochs, seed=seed, save_strategy="no", report_to=[],
        remove_unused_columns=False, disable_tqdm=True, logging_strategy="no", per_device_eval_batch_size=32,
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    trainer = _trainer(model, arguments, data)
    curve: list[dict[str, float]] = []

    class Score(TrainerCallback):  # type: ignore[misc]
        """Scores after each epoch, with the clock stopped."""

        seconds, begun = 0.0, time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            """Score the test split."""
            self.seconds += time.perf_counter() - self.begun
            curve.append({"seconds": self.seconds, "top1": trainer.evaluate(data["test"])["eval_top1"]})
            model.train()
            self.begun = time.perf_counter()

    trainer.add_callback(Score())
    trainer.train()
    return curve


def _prepared(
    splits: Any, checkpoint: str, seed: int, scale: tuple[float, float], *, zero_head: bool
) -> tuple[Any, dict[str, PeerImages]]:
    """Return the checkpoint with a new head, and the images of each split."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification, set_seed

    set_seed(seed)
    names = splits["train"].features["label"].names
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageClassification.from_pretrained(checkpoint)
    model.classifier = torch.nn.Linear(model.classifier.in_features, len(names))
    torch.nn.init.trunc_normal_(model.classifier.weight, std=model.config.initializer_range)
    if zero_head:
        torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    model.num_labels = model.config.num_labels = len(names)
    data = {
        name: PeerImages(
            rows.select_columns(["image"]), np.asarray(rows["label"]), processor, train=name == "train", scale=scale
        )
        for name, rows in splits.items()
    }
    return model, data


def _trainer(model: Any, arguments: Any, data: dict[str, PeerImages]) -> Any:
    from transformers import Trainer

    return Trainer(
        model=model,
        args=arguments,
        train_dataset=data["train"],
        compute_metrics=lambda p: {"top1": float((p.predictions.argmax(-1) == p.label_ids).mean())},
    )
