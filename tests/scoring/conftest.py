import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from transformers import ViTConfig, ViTForImageClassification

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        id2label=dict(enumerate(NAMES)), hidden_dropout_prob=0.5,
    )  # fmt: skip
    made = ViTForImageClassification(config)
    made.classifier.weight.data.normal_()
    return made.eval()


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture
def queries(monkeypatch):
    """Numbers of queries for which attention is computed."""
    seen, attention = set(), F.scaled_dot_product_attention

    def noted(query, *args, **kwargs):
        seen.add(query.shape[-2])
        return attention(query, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    return seen
