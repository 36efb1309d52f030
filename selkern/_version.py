"""The version of selkern."""

__version__ = "0.1.0"
