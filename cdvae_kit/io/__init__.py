"""Everything that opens a file: reading and writing crystals, checkpoints, downloads.

Names, which `__init__.pyi` lists, are loaded on first use: a download pays for neither torch nor pymatgen.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
