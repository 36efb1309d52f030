"""Class selectivity and robustness (Leavitt & Morcos, arXiv 2007.04440)."""
