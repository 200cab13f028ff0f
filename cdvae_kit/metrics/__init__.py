"""Crystals in, numbers out, failures counted: `evaluate` for all of them, and each metric by itself.

Names, which `__init__.pyi` lists, are loaded on first use: neither torch nor pymatgen before something is measured.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
