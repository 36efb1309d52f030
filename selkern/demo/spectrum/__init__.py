"""Spectra of natural images, and of a network with the 1/n regularizer on every hidden layer."""
