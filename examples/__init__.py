"""Scripts that show selkern at work."""
