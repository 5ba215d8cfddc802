"""Tiny random checkpoints of every family, made from configurations."""

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoModelForImageClassification

from vitft.model.classifier import Classifier
from vitft.resolution.retarget import Retargeting

PLAIN = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50,
    "projection_size": 16, "projection_dim": 16, "max_position_embeddings": 8,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
PAIR = {"vision_config": PLAIN, "text_config": TEXT, "projection_dim": 16}
WINDOWS = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 2]}
SCALED = STAGES | {"layer_scale_init_value": 1.0}
PYRAMID = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "depths": [1, 1, 1, 1]}

# family: (class name, settings, number of blocks)
CONFIGS = {
    "vit": ("ViT", PLAIN, 3),
    "vit_msn": ("ViTMSN", PLAIN, 3),
    "ijepa": ("IJepa", PLAIN, 3),
    "deit": ("DeiT", PLAIN, 3),
    "dinov2": ("Dinov2", PLAIN, 3),
    "dinov2_with_registers": ("Dinov2WithRegisters", PLAIN, 3),
    "beit": (
        "Beit",
        PLAIN | {"use_relative_position_bias": True, "use_absolute_position_embeddings": True,
                 "layer_scale_init_value": 1.0},
        3,
    ),
    "data2vec-vision": ("Data2VecVision", PLAIN | {"use_relative_position_bias": True}, 3),
    "clip": ("CLIP", PAIR, 3),
    "metaclip_2": ("MetaClip2", PAIR, 3),
    "siglip": ("Siglip", PAIR, 3),
    "swin": ("Swin", WINDOWS, 3),
    "swinv2": ("Swinv2", WINDOWS, 3),
    "donut-swin": ("DonutSwin", WINDOWS, 3),
    "hiera": ("Hiera", {"image_size": [64, 64], "embed_dim": 8, "num_heads": [1, 1, 2, 2], "depths": [1, 1, 1, 2]}, 5),
    "pvt": ("Pvt", PYRAMID | {"image_size": 64}, 4),
    "pvt_v2": ("PvtV2", PYRAMID | {"image_size": 64}, 4),
    "levit": (
        "Levit",
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2] * 3, "depths": [1] * 3,
         "key_dim": [8] * 3},
        10,
    ),
    "cvt": ("Cvt", {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]}, 6),
    "segformer": ("Segformer", PYRAMID | {"decoder_hidden_size": 8}, 4),
    "poolformer": ("PoolFormer", SCALED, 5),
    "swiftformer": ("SwiftFormer", {"image_size": 64, "embed_dims": [8, 8, 16, 16], "depths": [1, 1, 1, 2]}, 5),
    "focalnet": ("FocalNet", {"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 2]}, 5),
    "convnext": ("ConvNext", SCALED | {"image_size": 64}, 5),
    "convnextv2": ("ConvNextV2", STAGES | {"image_size": 64}, 5),
    "resnet": ("ResNet", STAGES | {"embedding_size": 8}, 5),
    "regnet": ("RegNet", STAGES | {"embedding_size": 8, "groups_width": 8}, 5),
    "bit": ("Bit", {"embedding_size": 8, "hidden_sizes": [32, 32, 64, 64], "num_groups": 8, "depths": [1, 1, 1, 2]}, 5),
    "mobilevit": (
        "MobileViT",
        {"image_size": 64, "hidden_sizes": [16] * 3, "neck_hidden_sizes": [8] * 7, "num_attention_heads": 2},
        13,
    ),
    "mobilevitv2": ("MobileViTV2", {"image_size": 64, "width_multiplier": 0.25}, 12),
    "mobilenet_v1": ("MobileNetV1", {"image_size": 64, "depth_multiplier": 0.25}, 26),
    "mobilenet_v2": ("MobileNetV2", {"image_size": 64, "depth_multiplier": 0.25}, 16),
    "efficientnet": (
        "EfficientNet",
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
        7,
    ),
    "textnet": ("TextNet", {"image_size": [64, 64], "hidden_sizes": [8] * 5, "stem_out_channels": 8}, 15),
    "hgnet_v2": (
        "HGNetV2",
        {"stem_channels": [3, 8, 8], "stage_in_channels": [8, 8, 16, 16], "stage_mid_channels": [8] * 4,
         "stage_out_channels": [8, 16, 16, 32], "stage_num_blocks": [1, 1, 1, 2], "stage_numb_of_layers": [2] * 4,
         "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 2]},
        5,
    ),
}  # fmt: skip

# family: class of its image processor; ViT's otherwise
PROCESSORS = {
    "deit": "DeiT", "dinov2": "Bit", "dinov2_with_registers": "Bit", "beit": "Beit", "data2vec-vision": "Beit",
    "clip": "CLIP", "metaclip_2": "CLIP", "siglip": "Siglip", "donut-swin": "Donut", "hiera": "Bit", "pvt": "Pvt",
    "pvt_v2": "Pvt", "levit": "Levit", "cvt": "ConvNext", "segformer": "Segformer", "poolformer": "PoolFormer",
    "focalnet": "Bit", "convnext": "ConvNext", "convnextv2": "ConvNext", "resnet": "ConvNext", "regnet": "ConvNext",
    "bit": "Bit", "mobilevit": "MobileViT", "mobilevitv2": "MobileViT", "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2", "efficientnet": "EfficientNet", "textnet": "TextNet",
}  # fmt: skip

BATCH_NORM = {
    "levit", "cvt", "segformer", "swiftformer", "resnet", "regnet", "mobilevit", "mobilevitv2", "mobilenet_v1",
    "mobilenet_v2", "efficientnet", "textnet", "hgnet_v2",
}  # fmt: skip


def config(family, **changes):
    """The configuration of a tiny model with 5 classes."""
    name, settings, _ = CONFIGS[family]
    return getattr(transformers, f"{name}Config")(**{"num_labels": 5, **settings, **changes})


def classifier(settings):
    """A random classifier of a configuration, reproducible."""
    torch.manual_seed(3)
    found = AutoModelForImageClassification._model_mapping[type(settings)]
    return (found[0] if isinstance(found, tuple) else found)(settings)


def model_of(family="vit", **changes):
    """A random classifier of a family, reproducible."""
    return classifier(config(family, **changes))


def images_for(model):
    """Six images of a model's own size, and the sample indices at which they stand."""
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", 32)
    size = size if isinstance(size, int) else size[0]
    images = torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images, torch.tensor([11, 4, 90, 7, 2**40, 5])


def processor(family, size=64):
    """The family's image processor, as a checkpoint of it would have it but small."""
    try:
        made = getattr(transformers, f"{PROCESSORS.get(family, 'ViT')}ImageProcessorPil")
        usual = made().to_dict()["size"]
    except ImportError:  # transformers 5.17 has Segformer's only with torchvision
        return processor("vit", size)
    return made(size={key: size for key in usual if key in ("height", "width", "shortest_edge")})


def save(model, folder, family="vit", size=64):
    """Write a checkpoint as transformers does; returns its path as text."""
    model.save_pretrained(folder)
    processor(family, size).save_pretrained(folder)
    return str(folder)


def photo(height, width, seed=0):
    """A smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def loaded(model, processor, size, name="mine", **changes):
    """A model in memory as vitft holds it."""
    family = getattr(model.config, "model_type", "none")
    return Classifier(
        name, model, processor, Retargeting(family, size, size), ("classifier.weight", "classifier.bias"), **changes
    )
