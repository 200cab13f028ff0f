"""Folders of pictures: what is cut, what is refused, and that the order is always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cdvae_kit.datasets.composed_images import ComposedImages
from cdvae_kit.io.pictures import PictureError, picture_files, read_objects, read_photographs


def save_object(path: Path, color: tuple[int, int, int], *, box: tuple[int, int, int, int] = (10, 4, 20, 9)) -> None:
    picture = Image.new("RGBA", (30, 20))
    picture.paste((*color, 255), box)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def test_an_object_is_cut_out_and_stands_in_the_middle_of_a_square(tmp_path: Path) -> None:
    save_object(tmp_path / "red.png", (255, 0, 0))
    (x,) = read_objects(tmp_path, side=20)
    # ten by five pixels: the upper and lower quarter of the square are empty
    assert x.shape == (4, 20, 20) and x[3, :2].max() == 0.0 and x[3, -3:].max() == 0.0
    assert x[3, 8:12].min() == 1.0 and x[0, 8:12].min() == 1.0 and x[1:3, 8:12].max() == 0.0


def test_pictures_come_by_path_whatever_the_folder_says(tmp_path: Path) -> None:
    for name, color in (("b/one.png", (0, 255, 0)), ("a/two.PNG", (255, 0, 0)), ("c.png", (0, 0, 255))):
        save_object(tmp_path / name, color)
    (tmp_path / "notes.txt").write_text("no picture")
    assert [path.name for path in picture_files(tmp_path)] == ["two.PNG", "one.png", "c.png"]
    assert read_objects(tmp_path, side=8)[:, :3, 4, 4].argmax(1).tolist() == [0, 1, 2]


def test_a_photograph_gives_its_corner_or_its_middle(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert read_photographs(tmp_path, side=5).max() == 0.0
    middle = read_photographs(tmp_path, side=5, part="middle")
    assert middle.shape == (1, 3, 5, 5) and middle[:, 1].min() == 1.0 and middle[:, 0].max() == 0.0


def test_grey_and_palette_pictures_become_colours(tmp_path: Path) -> None:
    Image.new("L", (6, 6), 51).save(tmp_path / "grey.png")
    Image.new("P", (6, 6)).save(tmp_path / "palette.gif")
    assert read_photographs(tmp_path, side=3)[0].unique().tolist() == pytest.approx([0.2])


def test_pictures_of_a_folder_make_a_data_set(tmp_path: Path) -> None:
    for i in range(3):
        save_object(tmp_path / "objects" / f"{i}.png", (80 * i, 255, 0))
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), (0, 0, 255)).save(tmp_path / "photos" / "sky.jpg")
    data = ComposedImages(
        range(3),
        ["rotate"],
        20,
        seed=0,
        image_size=16,
        objects=read_objects(tmp_path / "objects", side=32),
        backgrounds=read_photographs(tmp_path / "photos", side=16),
    )
    x, y = data.tensors()
    assert len(y.unique()) == 3 and bool((x[:, 2, 0, 0] > 0.9).all())
    assert torch.isfinite(x).all() and float((x[:, 1, 8, 8] > 0.5).float().mean()) > 0.9


def test_what_is_no_object_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (6, 6)).save(tmp_path / "opaque.png")
    with pytest.raises(PictureError, match="opaque everywhere"):
        read_objects(tmp_path, side=4)
    Image.new("RGBA", (6, 6)).save(tmp_path / "opaque.png")
    with pytest.raises(PictureError, match="wholly transparent"):
        read_objects(tmp_path, side=4)


@pytest.mark.parametrize("content", [b"", b"no picture at all", None])
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes | None) -> None:
    save_object(tmp_path / "a.png", (255, 0, 0))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:60] if content is None else content)
    with pytest.raises(PictureError, match=r"a\.png cannot be read"):
        read_objects(tmp_path, side=4)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no picture"):
        read_photographs(tmp_path, side=4)
    with pytest.raises(NotADirectoryError, match="is none"):
        read_photographs(tmp_path / "nowhere", side=4)
    save_object(tmp_path / "a.png", (255, 0, 0))
    with pytest.raises(ValueError, match="at least one pixel"):
        read_photographs(tmp_path, side=0)
