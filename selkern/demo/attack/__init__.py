"""Adversarial training with the selectivity regularizer: accuracy under attack, memory, time."""
