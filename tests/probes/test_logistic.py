"""Logistic regression: its head is a linear layer, its strength is chosen on validation images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zoo

from vitft.errors import ModelError
from vitft.probes.head import put_head
from vitft.probes.labelled import Labelled
from vitft.probes.logistic import LogisticHead, fit_best


def blobs(num_rows, num_classes, seed, noise=1.0, width=6):
    generator = np.random.default_rng(seed)
    means = 5 + 3 * np.random.default_rng(7).normal(size=(num_classes, width))
    labels = np.arange(num_rows) % num_classes
    values = means[labels] + noise * generator.normal(size=(num_rows, width))
    return Labelled(values.astype(np.float32), labels)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_gradient_of_its_objective_is_zero(num_classes):
    """Of the mean loss + l2 / 2 * |weights of standardised features|^2, with the head for features as they are."""
    train = blobs(80, num_classes, seed=0, noise=4.0)
    head, _ = fit_best(train, blobs(40, num_classes, seed=1, noise=4.0), num_classes)
    assert head.is_done
    weight = torch.tensor(head.weight, requires_grad=True)
    bias = torch.tensor(head.bias, requires_grad=True)
    logits = torch.tensor(train.values).double() @ weight.T + bias
    scaled = weight * torch.tensor(train.values.astype(np.float64).std(0) + 1e-5)
    penalised = scaled[1] - scaled[0] if num_classes == 2 else scaled  # of two classes, scikit-learn's own form
    penalty = penalised.square().sum()
    (F.cross_entropy(logits, torch.tensor(train.labels)) + head.l2 / 2 * penalty).backward()
    assert weight.grad.abs().max() < 2e-3 and bias.grad.abs().max() < 1e-3


def test_noise_wants_more_regularisation_than_order():
    strengths = {}
    for noise in (0.3, 12.0):
        rows = [blobs(60, 3, seed, noise, width=20) for seed in (0, 1)]
        strengths[noise] = fit_best(*rows, 3)[0].l2
    assert strengths[0.3] < strengths[12.0]


def test_a_class_without_training_images_is_never_said():
    train = blobs(60, 3, seed=0)
    train = Labelled(train.values, np.array([0, 1, 3])[train.labels])
    head, judged = fit_best(train, train, 5)
    assert head.weight.shape == (5, 6) and judged.top1 > 0.9
    logits = torch.tensor(train.values @ head.weight.T + head.bias).float()
    assert logits.softmax(1)[:, [2, 4]].max() == 0 and torch.isfinite(logits).all()


def test_a_fitted_head_in_a_model_gives_its_logits():
    model = zoo.model_of("vit").eval()
    classifier = zoo.loaded(model, None, (32, 32))
    classifier.has_head = False
    generator = np.random.default_rng(0)
    num_classes = model.config.num_labels
    head = LogisticHead(generator.normal(size=(num_classes, 16)), generator.normal(size=num_classes), 1, True)
    put_head(classifier, "classifier", head)
    values = generator.normal(size=(3, 16)).astype(np.float32)
    with torch.no_grad():
        logits = model.classifier(torch.tensor(values)).numpy()
    assert logits == pytest.approx(values @ head.weight.T + head.bias, abs=1e-4) and classifier.has_head


def test_a_head_that_is_more_than_a_linear_layer_is_not_replaced():
    classifier = zoo.loaded(zoo.model_of("levit"), None, (64, 64))
    head = LogisticHead(np.zeros((classifier.config.num_labels, 32)), np.zeros(classifier.config.num_labels), 1, True)
    with pytest.raises(ModelError, match=r"LevitClassificationLayer\) is more than a linear layer"):
        put_head(classifier, "classifier", head)
