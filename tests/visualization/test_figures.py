"""The figures: what is drawn in which order, and what is refused."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from pymatgen.core import Lattice, Structure

from cdvae_kit.crystal import CrystalBatch
from cdvae_kit.diffusion.samplers import FlowSampler
from cdvae_kit.diffusion.state import MASKED, NoisyCrystals
from cdvae_kit.models import decoding
from cdvae_kit.training.log import MetricsLog
from cdvae_kit.visualization import plot_denoising, plot_grid, plot_loss, plot_structure
from cdvae_kit.visualization.crystals.interactive import unit_sphere
from cdvae_kit.visualization.crystals.projection import camera, frame_of
from cdvae_kit.visualization.crystals.scene import element_radius, make_scene
from cdvae_kit.visualization.crystals.structures import ATOM_SCALE, VIEW
from tests.models.tiny import some_crystals, tiny_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def salt() -> Structure:
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def spheres(figure: Figure, panel: int = 0) -> list[EllipseCollection]:
    return [artist for artist in figure.axes[panel].collections if isinstance(artist, EllipseCollection)]


def diameter(sphere: EllipseCollection) -> float:
    return float(np.asarray(sphere.get_widths()).max())


def kinds(figure: Figure, panel: int = 0) -> list[str | None]:
    return [sphere.get_gid() for sphere in spheres(figure, panel)]


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=40)
    return file.getvalue()


# One crystal


def test_rock_salt_shows_its_eight_atoms_and_nineteen_images(salt: Structure) -> None:
    # 8 corners + 6 faces of one element, 12 edges + 1 middle of the other
    figure = plot_structure(salt)
    assert (kinds(figure).count("atom"), kinds(figure).count("image")) == (8, 19)


def test_without_images_the_cell_s_own_atoms_are_shown(salt: Structure) -> None:
    assert kinds(plot_structure(salt, images=False)) == ["atom"] * 8


def test_the_title_names_formula_and_space_group(salt: Structure) -> None:
    assert plot_structure(salt).axes[0].get_title() == "NaCl, Fm-3m (225)"
    assert plot_structure(salt, title="kitchen").axes[0].get_title() == "kitchen"


def test_the_legend_names_each_element_once(salt: Structure) -> None:
    assert [text.get_text() for text in plot_structure(salt).legends[0].get_texts()] == ["Na", "Cl"]


def test_spheres_are_to_scale(salt: Structure) -> None:
    widths = {round(diameter(sphere), 6) for sphere in spheres(plot_structure(salt, atom_scale=0.3))}
    assert widths == {round(0.6 * element_radius(number), 6) for number in (11, 17)}


def test_atoms_nearer_to_the_eye_are_painted_later() -> None:
    # seen along b: the smaller y, the nearer
    crystal = Structure(Lattice.cubic(9.0), ["H", "Cs", "O"], [[0.4, 0.3, 0.4], [0.5, 0.5, 0.5], [0.6, 0.8, 0.6]])
    painted = sorted(spheres(plot_structure(crystal, view=(0.0, -90.0))), key=lambda sphere: sphere.get_zorder())
    expected = [2 * ATOM_SCALE * element_radius(number) for number in (8, 55, 1)]
    assert [diameter(sphere) for sphere in painted] == pytest.approx(expected)


def test_an_edge_before_an_atom_is_painted_over_it_and_one_behind_under_it() -> None:
    # seen along b: the front edges have y = 0, the back ones y = 4, the atom is between
    crystal = Structure(Lattice.cubic(4.0), ["Cu"], [[0.5, 0.5, 0.5]])
    figure = plot_structure(crystal, view=(0.0, -90.0))
    lines = [artist for artist in figure.axes[0].collections if isinstance(artist, LineCollection)]
    (sphere,) = spheres(figure)
    under = sum(len(line.get_segments()) for line in lines if line.get_zorder() < sphere.get_zorder())
    over = sum(len(line.get_segments()) for line in lines if line.get_zorder() > sphere.get_zorder())
    assert under == over > 0


def test_no_piece_of_an_edge_is_inside_a_sphere(salt: Structure) -> None:
    bare = plot_structure(Structure(salt.lattice, ["Na"], [[0.5, 0.5, 0.5]]))
    full = plot_structure(salt)
    count = [
        sum(len(artist.get_segments()) for artist in figure.axes[0].collections if isinstance(artist, LineCollection))
        for figure in (bare, full)
    ]
    assert count[1] < count[0]


def test_everything_drawn_lies_within_the_frame(zoo: CrystalBatch) -> None:
    for index in range(len(zoo)):
        scene = make_scene(zoo, index)
        half_side = frame_of([scene], VIEW, ATOM_SCALE)
        seen = (np.concatenate([scene.positions, scene.edges.reshape(-1, 3)]) - scene.lattice.sum(0) / 2) @ camera(
            VIEW
        ).T
        assert np.abs(seen[:, :2]).max() < half_side


@pytest.mark.parametrize("view", [(0.0, 0.0), (14.0, -68.0), (90.0, 0.0), (-30.0, 200.0)])
def test_the_camera_is_a_rotation(view: tuple[float, float]) -> None:
    basis = camera(view)
    assert basis @ basis.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(basis) == pytest.approx(1.0)


def test_every_awkward_crystal_can_be_drawn(zoo: CrystalBatch) -> None:
    for index in range(len(zoo)):
        assert png(plot_structure(zoo.select([index]))).startswith(b"\x89PNG")


@pytest.mark.parametrize("atom_scale", [0.0, -1.0, 3.0, float("nan")])
def test_a_senseless_size_of_atoms_is_refused(salt: Structure, atom_scale: float) -> None:
    with pytest.raises(ValueError, match="atom_scale must lie between 0 and 2"):
        plot_structure(salt, atom_scale=atom_scale)


def test_a_crystal_anywhere_in_its_cell_is_recognised_with_an_atom_on_the_corner(salt: Structure) -> None:
    moved = salt.copy()
    moved.translate_sites(list(range(len(moved))), [0.13, 0.27, 0.39])
    assert len(kinds(plot_structure(moved))) == 8
    for figure in (plot_structure(moved, origin="atom"), plot_grid([moved], origin="atom")):
        assert len(kinds(figure)) == 27
    traces = plot_structure(moved, origin="atom", interactive=True).data[:-1]
    assert sum(len(trace.x) for trace in traces) == 27 * len(unit_sphere()[0])


def test_an_unknown_origin_is_refused(salt: Structure) -> None:
    with pytest.raises(ValueError, match="origin must be 'cell' or 'atom', got 'middle'"):
        plot_structure(salt, origin="middle")  # type: ignore[call-overload]


# To be turned


def test_the_interactive_figure_has_a_sphere_for_each_atom_and_image(salt: Structure) -> None:
    vertices, faces = unit_sphere()
    traces = plot_structure(salt, interactive=True).data
    assert {trace.name: len(trace.x) / len(vertices) for trace in traces[:-1]} == {"Na": 14, "Cl": 13}
    assert {trace.name: len(trace.i) / len(faces) for trace in traces[:-1]} == {"Na": 14, "Cl": 13}


def test_the_interactive_spheres_are_where_the_atoms_are(zoo: CrystalBatch) -> None:
    crystal = zoo.select([5])
    scene = make_scene(crystal)
    num_vertices = len(unit_sphere()[0])
    traces = plot_structure(crystal, interactive=True).data[:-1]
    centres = np.concatenate([np.stack([t.x, t.y, t.z], -1).reshape(-1, num_vertices, 3).mean(1) for t in traces])
    order = np.argsort(scene.atomic_numbers, kind="stable")
    assert centres == pytest.approx(scene.positions[order], abs=1e-5)


def test_the_interactive_cell_has_twelve_edges(salt: Structure) -> None:
    cell = plot_structure(salt, interactive=True).data[-1]
    assert (cell.name, len(cell.x), int(np.isnan(np.asarray(cell.x)).sum())) == ("cell", 36, 12)


def test_the_sphere_is_closed_and_faces_outwards() -> None:
    vertices, faces = unit_sphere()
    assert np.linalg.norm(vertices, axis=-1) == pytest.approx(1.0)
    # Euler: vertices - edges + faces = 2, each edge shared by two triangles
    edges = {tuple(sorted((face[i], face[i - 1]))) for face in faces.tolist() for i in range(3)}
    assert len(vertices) - len(edges) + len(faces) == 2 and 2 * len(edges) == 3 * len(faces)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    assert ((np.cross(b - a, c - a) * (a + b + c)).sum(-1) > 0).all()


# Several


def test_a_grid_has_a_panel_for_each_crystal_with_all_of_its_atoms(zoo: CrystalBatch) -> None:
    figure = plot_grid(zoo, columns=4, images=False)
    assert [len(kinds(figure, panel)) for panel in range(len(figure.axes))] == zoo.num_atoms.tolist()


def test_a_grid_takes_structures_and_titles_of_one_s_own(salt: Structure) -> None:
    figure = plot_grid([salt, salt], titles=["first", "second"])
    assert [axes.get_title() for axes in figure.axes] == ["first", "second"]


def test_the_panels_of_a_grid_name_formula_and_space_group(salt: Structure) -> None:
    assert plot_grid([salt]).axes[0].get_title() == "NaCl\nFm-3m (225)"


def test_a_legend_of_many_elements_stays_within_the_grid() -> None:
    many = some_crystals(12)
    figure = plot_grid(many, columns=2)
    png(figure)
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0.0 and box.x1 <= figure.bbox.width


def test_what_a_grid_cannot_show_is_refused(zoo: CrystalBatch) -> None:
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        plot_grid(zoo, columns=0)
    with pytest.raises(ValueError, match="one title for each of the 6 crystals, got 1"):
        plot_grid(zoo, titles=["one"])
    with pytest.raises(ValueError, match="at most 100 crystals, got 102; choose some"):
        plot_grid(zoo.select(list(range(6)) * 17))
    with pytest.raises(ValueError, match="at least one crystal, got none"):
        plot_grid([])


# From noise to a crystal


@pytest.fixture(scope="module")
def denoising_path() -> list[NoisyCrystals]:
    model = tiny_model()
    ids = torch.arange(3)
    z = decoding.sample_codes(model, ids, seed=0)
    num_atoms = torch.tensor([2, 5, 3])
    return list(decoding.denoise(model, z, num_atoms, FlowSampler(num_steps=10), seed=0, crystal_ids=ids))


def test_the_frames_go_from_the_noise_to_the_last_step(denoising_path: list[NoisyCrystals]) -> None:
    figure = plot_denoising(iter(denoising_path), crystal=1, num_frames=3, images=False)
    assert [axes.get_title() for axes in figure.axes] == ["noise", "step 5 of 10", "step 10 of 10"]
    assert [len(kinds(figure, panel)) for panel in range(3)] == [5, 5, 5]


def test_all_frames_have_one_scale(denoising_path: list[NoisyCrystals]) -> None:
    figure = plot_denoising(denoising_path, num_frames=4)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1


def test_one_atom_stays_on_the_corner_through_all_frames(denoising_path: list[NoisyCrystals]) -> None:
    figure = plot_denoising(denoising_path, crystal=1, num_frames=3, origin="atom")
    # an atom and its seven images at least
    assert all(kinds(figure, panel).count("image") >= 7 for panel in range(3))


def test_a_short_path_is_shown_whole(denoising_path: list[NoisyCrystals]) -> None:
    assert len(plot_denoising(denoising_path[:3], num_frames=8).axes) == 3


def test_an_atom_without_an_element_is_shown_as_such(denoising_path: list[NoisyCrystals]) -> None:
    first = denoising_path[0]
    masked = replace(first, elements=torch.full_like(first.elements, MASKED))
    figure = plot_denoising([masked, denoising_path[-1]])
    assert figure.legends[0].get_texts()[0].get_text() == "?"


def test_a_path_that_is_none_is_refused(denoising_path: list[NoisyCrystals]) -> None:
    with pytest.raises(ValueError, match="a start and at least one step, got 1 states"):
        plot_denoising(denoising_path[:1])
    with pytest.raises(ValueError, match="num_frames must be at least 2"):
        plot_denoising(denoising_path, num_frames=1)
    with pytest.raises(IndexError, match="of 3 crystals, from 0; there is no crystal 3"):
        plot_denoising(denoising_path, crystal=3)


# Loss


def write_log(folder: Path, val_losses: list[float]) -> Path:
    log = MetricsLog(folder / "metrics.csv")
    for i, loss in enumerate(val_losses):
        log.add({"step": 10 * i + 5, "split": "train", "epoch": i, "seconds": i, "loss": 2 * loss, "kl": 3.0})
        log.add({"step": 10 * i + 10, "split": "val", "epoch": i, "seconds": i, "loss": loss, "kl": 1.0 + i})
    return folder / "metrics.csv"


def test_the_curves_are_the_log_s_and_the_best_step_is_marked(tmp_path: Path) -> None:
    left, right = plot_loss(write_log(tmp_path, [4.0, 1.0, 2.0])).axes
    curves = {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in left.lines}
    assert curves == {
        "training": [[5, 8], [15, 2], [25, 4]],
        "validation": [[10, 4], [20, 1], [30, 2]],
        "best: step 20": [[20, 1]],
    }
    assert [np.asarray(line.get_ydata()).tolist() for line in right.lines] == [[1.0, 2.0, 3.0]]


def test_a_run_s_folder_stands_for_its_log(tmp_path: Path) -> None:
    write_log(tmp_path, [4.0, 1.0])
    assert len(plot_loss(tmp_path).axes[0].lines) == 3


def test_losses_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    left = plot_loss(write_log(tmp_path, [float("nan"), 5.0])).axes[0]
    assert all(np.isfinite(np.asarray(line.get_ydata())).all() for line in left.lines)


def test_a_negative_loss_is_not_put_on_a_logarithmic_axis(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert plot_loss(write_log(tmp_path, [4.0, 1.0])).axes[0].get_yscale() == "log"
    assert plot_loss(write_log(tmp_path / "other", [4.0, -1.0])).axes[0].get_yscale() == "linear"


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no log .*metrics\.csv"):
        plot_loss(tmp_path)
    (tmp_path / "empty.csv").write_text("step,split,epoch,seconds,loss,learning_rate,gradient_norm,skipped_steps\n")
    with pytest.raises(ValueError, match="holds no rows yet"):
        plot_loss(tmp_path / "empty.csv")
    (tmp_path / "other.csv").write_text("name,age\n1,2\n")
    with pytest.raises(ValueError, match="its first line should name step, split"):
        plot_loss(tmp_path / "other.csv")


# Windows


def test_nothing_is_drawn_through_pyplot_and_no_window_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "import cdvae_kit.visualization as v\n"
        "assert not {'matplotlib', 'plotly', 'torch'} & set(sys.modules), 'loaded too early'\n"
        "from pymatgen.core import Lattice, Structure\n"
        "figure = v.plot_structure(Structure(Lattice.cubic(3.0), ['Po'], [[0, 0, 0]]))\n"
        "figure.savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
        "assert 'plotly' not in sys.modules, 'plotly'\n"
    )
    # a backend that has no screen to open a window on
    environment = {"MPLBACKEND": "TkAgg", "PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "po.png")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "po.png").stat().st_size > 1000
