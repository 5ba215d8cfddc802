"""Tiny checkpoints whose position tables are anything but constant, and the sizes that they can take."""

import torch
from model import zoo

SQUARE = {"hiera": 96, "pvt": 96, "levit": 96, "swin": 64, "swinv2": 64, "donut-swin": 64}
WITH_TABLES = {
    "vit", "vit_msn", "ijepa", "deit", "dinov2", "dinov2_with_registers", "beit", "data2vec-vision", "clip",
    "metaclip_2", "siglip", "hiera", "pvt", "levit",
}  # fmt: skip


def checkpoint(family, folder, **changes):
    """Write a tiny model whose tables are anything but constant; return it and its path."""
    model = zoo.classifier(zoo.config(family, **changes)).eval()
    model.config.id2label = {number: f"class {number}" for number in range(5)}  # PVT's configuration makes none
    if family in WITH_TABLES | {"swin"}:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.3)
    return model, zoo.save(model, folder / family, family)
