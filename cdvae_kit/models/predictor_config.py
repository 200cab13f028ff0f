"""What property predictors are made of: validated, frozen settings that are stored in their checkpoints."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PredictorSettings(BaseModel):
    """What the settings of both kinds of predictor share."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    properties: tuple[str, ...]
    """Names of the properties, as the data have them."""
    units: tuple[str, ...]
    """Unit of each property; "" where it is not known."""
    num_members: int = Field(4, ge=1, le=100)
    """Networks of different seeds and folds; their mean is the prediction, their spread shapes the interval."""
    coverage: float = Field(0.9, gt=0.0, lt=1.0)
    """Share of new crystals, drawn as the calibration crystals were, whose value the interval is to hold."""

    @model_validator(mode="after")
    def _one_unit_a_property(self) -> "PredictorSettings":
        if not self.properties or len(set(self.properties)) != len(self.properties):
            raise ValueError(f"a predictor needs one property or several different ones, got {self.properties}")
        if len(self.units) != len(self.properties):
            raise ValueError(f"{len(self.properties)} properties have {len(self.units)} units; give one each")
        return self


class PropertyPredictorConfig(PredictorSettings):
    """A predictor from the crystal. All properties are intensive: the same for a cell and its supercell."""

    kind: Literal["equivariant", "vector"] = "equivariant"
    """`equivariant`: e3nn convolutions with l up to 2, which see angles; `vector`: PaiNN messages, a second opinion by
    another network. On Perov-5 four members of either err alike (0.077 and 0.079 eV/atom)."""
    channels: int = Field(32, ge=1)
    """Channels of each irrep: l = 0, 1, 2 (`equivariant`) or 0, 1 (`vector`, for which 64 is usual)."""
    num_convolutions: int = Field(2, ge=1)
    """Rounds of messages; the last equivariant one gives scalars only."""
    cutoff: float = Field(4.5, gt=0.0)
    """Reach of an edge, angstrom. Every neighbour within it counts, so that the prediction is smooth in positions."""
    num_basis: int = Field(8, ge=1)
    """Radial functions."""
    typical_neighbors: float = Field(30.0, gt=0.0)
    """Sums over neighbours are divided by the square root of this."""
    width: int = Field(128, ge=1)
    """Width of the pooled features."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the pooled features that a training step leaves out."""
    training_noise: float = Field(0.1, ge=0.0)
    """Largest standard deviation of the noise on training coordinates, angstrom; each crystal has its own, uniform from
    0. The label stays: generated crystals are a little off, and the property of what they stand for is asked."""


class LatentPredictorConfig(PredictorSettings):
    """A predictor from the code z of an autoencoder."""

    latent_dim: int = Field(128, ge=1)
    """Width of z."""
    width: int = Field(256, ge=1)
    """Width of the hidden layers."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of hidden features that a training step leaves out."""
    autoencoder: str = ""
    """SHA-256 of the autoencoder's weights whose codes these are; codes of other weights mean other crystals."""
