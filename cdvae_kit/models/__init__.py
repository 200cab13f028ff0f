"""Encoder, score networks, heads, and the CDVAE made of them; property predictors; weights that the package carries.

Names, which `__init__.pyi` lists, are loaded on first use: reading settings costs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
