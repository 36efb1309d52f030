"""Benchmarks of selkern against plain PyTorch.

``python -m selkern bench`` runs them; :mod:`.works` says what is timed.
"""
