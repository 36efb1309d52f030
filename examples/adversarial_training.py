"""Adversarial training on scikit-learn's digits: PGD inside, the selectivity regularizer outside.

Run ``python examples/adversarial_training.py``; it needs scikit-learn.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from selkern import SelectivityRegularizer
from selkern.attacks import PGD
from selkern.data import load_digits


def make_model():
    """Three layers of convolution, BatchNorm and ReLU, average pooling, a linear classifier."""
    layers = []
    for before, after, stride in [(1, 16, 1), (16, 32, 2), (32, 64, 2)]:
        convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def train(model, images, labels, attack, alpha, epochs=15, batch_size=128):
    """Train on adversarial images; alpha < 0 lowers selectivity, alpha > 0 raises it."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    with SelectivityRegularizer(model, num_classes=10, alpha=alpha) as reg:
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(batch_size):
                adv = attack(images[rows], labels[rows])
                loss = cross_entropy(model(adv), labels[rows]) + reg(labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def accuracy(model, images, labels, attack=None):
    """Share of the images that the model gets right, attacked or as they are."""
    model.eval()
    with torch.no_grad():
        logits = model(images if attack is None else attack(images, labels))
    return (logits.argmax(1) == labels).double().mean().item()


def main():
    """Train a model and print how it does."""
    torch.manual_seed(0)
    train_set, test_set = load_digits()
    (images, labels), test = train_set[:], test_set[:]
    model = make_model()
    attack = PGD(model, eps=0.1, alpha=0.05, steps=5)
    train(model, images, labels, attack, alpha=-2.0)
    stronger = PGD(model, eps=0.1, alpha=0.0125, steps=20)
    print(
        f"accuracy: {accuracy(model, *test):.1%}, under PGD {accuracy(model, *test, stronger):.1%}"
    )


if __name__ == "__main__":
    main()
