"""Train a network on real digits with the selectivity regularizer: ``python -m selkern demo``."""
