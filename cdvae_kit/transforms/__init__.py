"""Data to data, seeded, without a trainable parameter: a distribution over parameters plus a pure function of both.

Names, which `__init__.pyi` lists, are loaded on first use, so that users of one kind of data do not pay for the others.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
