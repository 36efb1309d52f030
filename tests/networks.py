"""Small networks to regularize, and what a regularized step must give."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from selkern import reference

NUM_CLASSES = 4


class Block(nn.Module):
    """Calls one ReLU twice, as torchvision's residual blocks do."""

    def __init__(self, channels, inplace=False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x):
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


class Network(nn.Module):
    def __init__(self, inplace=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)
        self.layer1 = nn.Sequential(Block(5, inplace))
        self.hidden = nn.Linear(5, 6)
        self.hidden_relu = nn.ReLU(inplace=inplace)
        self.head = nn.Linear(6, NUM_CLASSES)

    def forward(self, x):
        x = self.layer1(self.relu(self.stem(x)))
        return self.head(self.hidden_relu(self.hidden(x.mean((2, 3)))))


NAMES = ["relu", "layer1.0.relu", "layer1.0.relu_1", "hidden_relu"]


def plain_activations(model, x):
    """Return every ReLU output of an untouched copy of ``model``, in the order of NAMES."""
    stem = F.relu(model.stem(x))
    block = model.layer1[0]
    inner = F.relu(block.conv1(stem))
    outer = F.relu(stem + block.conv2(inner))
    hidden = F.relu(model.hidden(outer.mean((2, 3))))
    return [stem, inner, outer, hidden], model.head(hidden)


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)


def assert_same_gradients(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def expected_step(model, batch, alpha=-2.0):
    x, y = batch
    activations, logits = plain_activations(model, x)
    penalty = -alpha * reference.mean_selectivity(activations, y, NUM_CLASSES)
    return penalty, gradients(F.cross_entropy(logits, y) + penalty, model)


class Checkpointed(Network):
    use_reentrant = False

    def forward(self, x):
        x = self.relu(self.stem(x))
        x = checkpoint(self.layer1, x, use_reentrant=self.use_reentrant)
        return self.head(self.hidden_relu(self.hidden(x.mean((2, 3)))))
