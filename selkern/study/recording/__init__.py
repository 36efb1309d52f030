"""Two-repeat neural recordings and the spectra of networks (Stringer et al. 2019)."""
