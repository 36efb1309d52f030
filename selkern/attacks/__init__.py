"""Gradient attacks: the fused step, FGSM and PGD, and other libraries' attacks in their place.

An attack is anything that is called as ``attack(images, labels)`` and returns adversarial images.
"""

from selkern.attacks._adapters import from_foolbox, from_secml
from selkern.attacks._loops import FGSM, PGD
from selkern.attacks._step import pgd_step

__all__ = ["FGSM", "PGD", "from_foolbox", "from_secml", "pgd_step"]
