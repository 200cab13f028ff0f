"""What can be wrong with one crystal, each fault under its own name.

All are `ValueError`s, so that a reader can catch `CrystalError` for one bad record and go on with the next. Faults of
files (cannot be opened, cannot be parsed) belong to `cdvae_kit.io`.
"""


class CrystalError(ValueError):
    """A crystal that cannot be used, and why."""


class EmptyCrystalError(CrystalError):
    """There is no atom."""


class MissingCellError(CrystalError):
    """There is no cell, it is flat, or it does not repeat along all three axes."""


class OddCellError(CrystalError):
    """The cell is so large, thin or empty that it must be a slip, and searches in it have no end."""


class DisorderedSiteError(CrystalError):
    """A site is shared by several elements, or only partly filled."""


class UnknownElementError(CrystalError):
    """A species is not one of the elements 1 to 118."""


class NonFiniteError(CrystalError):
    """A coordinate or a cell vector is NaN or infinite."""


class OverlappingAtomsError(CrystalError):
    """Two atoms, or an atom and its own periodic image, are too close."""


class TooManyAtomsError(CrystalError):
    """There are more atoms than asked for or than a model takes."""


class BondError(CrystalError):
    """The bonds of a crystal could not be found."""
