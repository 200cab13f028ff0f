"""Pictures of crystals, of the way from noise to a crystal, of a training run and of an evaluation.

Names, which `__init__.pyi` lists, are loaded on first use: matplotlib, plotly and torch only when something is drawn.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
