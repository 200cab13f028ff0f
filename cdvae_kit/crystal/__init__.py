"""What a crystal is: lattice, coordinates, elements, the batch, conversion and symmetry.

Names, which `__init__.pyi` lists, are loaded on first use: records of arrays and elements pay for no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
