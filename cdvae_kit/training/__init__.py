"""Training: configuration and presets, data, the Lightning module, averages of weights, the prior, the whole run.

Names, which `__init__.pyi` lists, are loaded on first use: reading a preset costs neither torch nor Lightning.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
