"""Data sets: the registry of public ones, loading, caching, splits, and the sets that the package makes itself.

Names, which `__init__.pyi` lists, are loaded on first use: asking the registry costs neither torch nor pymatgen.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
