"""Relaxation through ASE calculators and batched potentials, and the hull that crystals are compared with.

Names, which `__init__.pyi` lists, are loaded on first use: a hull pays for no potential.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
