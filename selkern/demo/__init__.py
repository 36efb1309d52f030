"""Networks trained on real digits with the regularizers: ``python -m selkern demo``."""
