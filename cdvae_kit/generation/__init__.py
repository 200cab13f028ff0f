"""What needs a trained model, and the way to one: training, sampling into files, reconstruction, paths, codes.

Names, which `__init__.pyi` lists, are loaded on first use: what samples pays for no training.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
