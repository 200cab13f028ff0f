"""Folders of picture files as tensors: photographs, and objects cut out on a transparent ground.

Pillow decodes them; whoever reads no picture does not load it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class PictureError(ValueError):
    """A file that is no picture, or not the picture that was asked for."""


def picture_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures under a folder, those in sub-folders too, by path: always the same order."""
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"expected a folder of pictures, but {folder} is none")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise FileNotFoundError(f"{folder} holds no picture; known are {', '.join(sorted(SUFFIXES))}")
    return found


def read_objects(folder: str | os.PathLike[str], *, side: int) -> Tensor:
    """(n, 4, side, side) in [0, 1]: one object a file, with its opacity, as `ComposedImages` takes them.

    Cut to what is not transparent and set in the middle of a square. A picture without a transparent pixel, or with
    nothing else, raises: it shows no object that could be set before another background.

    Args:
        folder: every picture is one class, in the order of `picture_files`.
        side: pixels.
    """
    return torch.stack([_object(path, side) for path in picture_files(folder)])


def read_photographs(
    folder: str | os.PathLike[str], *, side: int, part: Literal["corner", "middle"] = "corner"
) -> Tensor:
    """(n, 3, side, side) in [0, 1]: the largest square of each picture at its upper left corner or in its middle.

    Args:
        folder: in the order of `picture_files`.
        side: pixels.
        part: Transforms-2D takes the corner.
    """
    return torch.stack([_photograph(path, side, part) for path in picture_files(folder)])


def _object(path: Path, side: int) -> Tensor:
    from PIL import Image

    picture = _opened(path, "RGBA")
    opacity = picture.getchannel("A")
    box = opacity.getbbox()
    if box is None or opacity.getextrema()[0] == 255:
        raise PictureError(
            f"{path} is {'wholly transparent' if box is None else 'opaque everywhere'}; an object needs a transparent "
            "ground around it"
        )
    cut = picture.crop(box)
    longest = max(cut.size)
    square = Image.new("RGBA", (longest, longest))
    square.paste(cut, ((longest - cut.width) // 2, (longest - cut.height) // 2))
    return _resized(square, side)


def _photograph(path: Path, side: int, part: str) -> Tensor:
    picture = _opened(path, "RGB")
    shortest = min(picture.size)
    left, top = (0, 0) if part == "corner" else ((n - shortest) // 2 for n in picture.size)
    return _resized(picture.crop((left, top, left + shortest, top + shortest)), side)


def _opened(path: Path, mode: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return picture.convert(mode)
    # Pillow's readers tell a damaged file by any of these
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, PermissionError | FileNotFoundError):
            raise
        raise PictureError(f"{path} cannot be read as a picture: {error}") from error


def _resized(picture: Image.Image, side: int) -> Tensor:
    from PIL import Image

    if side < 1:
        raise ValueError(f"a picture needs at least one pixel a side, got {side}")
    pixels = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32) / 255.0
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
