"""The two papers' findings as commands: ``python -m selkern study``."""
