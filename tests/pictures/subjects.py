"""Tiny models and photos to be looked at."""

import torch
from model import zoo

from vitft.pictures.look import Photo

SIZE = (32, 32)


def subject(family="vit", **changes):
    model = zoo.classifier(zoo.config(family, **changes)).eval()
    return zoo.loaded(model, zoo.processor(family), SIZE, f"a-{family}")


def photos(count, name="p"):
    pixels = torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    return [Photo(f"{name}{number}", each, "a class") for number, each in enumerate(pixels)]
