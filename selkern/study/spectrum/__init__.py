"""A 1/n spectrum and robustness (Nassar et al., arXiv 2012.04729)."""
