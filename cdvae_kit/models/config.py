"""What a model is made of: validated, frozen settings that are stored in its checkpoint."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cdvae_kit.diffusion.sampler_names import SAMPLERS, WITHOUT_SCORE, SamplerName


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EncoderConfig(_Settings):
    """The network from a crystal to the mean and variance of its latent code."""

    kind: Literal["equivariant", "dimenet++"] = "equivariant"
    """`equivariant`: e3nn convolutions, then messages in the frame of the cell; `dimenet++`: as published."""
    channels: int = Field(24, ge=1)
    """Channels of each irrep (l = 0, 1, 2) in the equivariant convolutions."""
    lmax: int = Field(2, ge=0, le=4)
    """Highest degree of the spherical harmonics."""
    num_convolutions: int = Field(2, ge=1)
    """Equivariant convolutions; the last one gives scalars only."""
    cutoff: float = Field(6.0, gt=0.0)
    """Reach of an edge, angstrom."""
    max_neighbors: int = Field(12, ge=1)
    """Neighbours of an atom; ties at the last one are all kept."""
    num_basis: int = Field(8, ge=1)
    """Radial functions."""
    width: int = Field(128, ge=2)
    """Width of an atom's invariant features."""
    num_frame_layers: int = Field(2, ge=0)
    """Rounds of messages from all atoms to the orbits on fractional differences, after the convolutions. They see the
    cell that the crystal is written in; it is the one of the canonical description, the crystal's own."""
    num_frequencies: int = Field(8, ge=1)
    """Fourier features of a fractional difference, per axis."""


class ScoreNetworkConfig(_Settings):
    """The network that denoises coordinates, types and lattice."""

    kind: Literal["fractional", "painn", "gemnet"] = "fractional"
    """`fractional`: all pairs, Fourier features of fractional differences; `painn`: equivariant messages on the
    periodic graph; `gemnet`: messages with angles, for the published choices."""
    width: int = Field(128, ge=2)
    """Width of an atom's features."""
    num_layers: int = Field(4, ge=1)
    """Rounds of messages."""
    num_frequencies: int = Field(10, ge=1)
    """Fourier features of a fractional difference, per axis (`fractional`)."""
    cutoff: float = Field(7.0, gt=0.0)
    """Reach of an edge, angstrom (`painn`, `gemnet`)."""
    max_neighbors: int = Field(20, ge=1)
    """Neighbours of an atom (`painn`, `gemnet`)."""
    num_basis: int = Field(32, ge=1)
    """Radial functions (`painn`, `gemnet`)."""
    knows_noise_level: bool = True
    """False: the network is not told the noise level, as published."""
    knows_blur: bool = False
    """Whether it is told how blurred a code is, so that it can be trained to decode codes that are uncertain
    (`training.codes="kept"`); only the network `fractional` can."""


class NoiseConfig(_Settings):
    """What is noised, and how."""

    coordinates: Literal["straight_path", "wrapped_normal", "gaussian"] = "straight_path"
    """`straight_path`: from uniform points, matched to the atoms; `wrapped_normal`: exact score on the torus;
    `gaussian`: score of the unwrapped normal, as published."""
    match_atoms: bool = True
    """`straight_path` only: pair noise and atoms of one element so that the paths are short."""
    time_power: float = Field(0.5, gt=0.0)
    """Times of training are u^time_power with u uniform; below 1, high noise is met more often. At low noise the
    crystal gives itself away; at high noise z has to."""
    sigma_min: float = Field(0.01, gt=0.0)
    """Smallest noise on coordinates, angstrom (not for `straight_path`)."""
    sigma_max: float = Field(10.0, gt=0.0)
    """Largest noise on coordinates, angstrom; a cell that is uniform earlier stops there (not for `straight_path`)."""
    types: Literal["fixed", "exchanged", "absorbing", "published"] = "fixed"
    """`fixed`: types come from what the heads read and stay; `exchanged`: they come from there, and orbits of one
    multiplicity may exchange them; `absorbing`: masked and revealed; `published`: drawn from the composition, more so
    the higher the level, set to the argmax at every step."""
    lattice: Literal["path", "fixed"] = "path"
    """`path`: denoised together with the coordinates; `fixed`: the head's prediction is kept, as published."""

    @field_validator("types", "lattice", mode="before")
    @classmethod
    def _earlier_values(cls, value: Any) -> Any:
        # what checkpoints and presets of earlier versions say
        return "fixed" if value == "held" else value

    @property
    def samplers(self) -> tuple[SamplerName, ...]:
        """Those that go with the noise on the coordinates: a straight path has a velocity and no score.

        >>> NoiseConfig().samplers
        ('flow', 'heun')
        """
        return WITHOUT_SCORE if self.coordinates == "straight_path" else SAMPLERS

    @property
    def keeps_composition(self) -> bool:
        """Whether a crystal ends with the composition that was read for it."""
        return self.types in ("fixed", "exchanged")


class LossWeights(_Settings):
    """Weights of the terms of the loss."""

    # the docstrings of the terms are in `CDVAE.loss`
    num_atoms: float = Field(1.0, ge=0.0)
    lattice_head: float = Field(1.0, ge=0.0)
    composition: float = Field(1.0, ge=0.0)
    coordinates: float = Field(1.0, ge=0.0)
    types: float = Field(1.0, ge=0.0)
    group: float = Field(1.0, ge=0.0)
    positions: float = Field(1.0, ge=0.0)
    sites: float = Field(10.0, ge=0.0)
    """Surroundings and parameters of each orbit, read from z; see `sites.py`."""
    lattice: float = Field(1.0, ge=0.0)
    property: float = Field(1.0, ge=0.0)
    kl: float = Field(1e-4, ge=0.0)


class PriorConfig(_Settings):
    """The learned prior: a flow from N(0, I) to the codes of the training crystals, fitted after the autoencoder."""

    width: int = Field(512, ge=1)
    num_layers: int = Field(4, ge=1)
    hint: int = Field(0, ge=0)
    """Width of the network that reads what the prior is told, compositions with the features of their elements; 0: one
    linear layer, a quarter as wide as the prior, that reads compositions as shares alone."""


class CDVAEConfig(_Settings):
    """A whole model."""

    max_atoms: int = Field(20, ge=1, le=512)
    """Most atoms in a cell."""
    latent_dim: int = Field(128, ge=1)
    """Width of z."""
    hidden_dim: int = Field(256, ge=1)
    """Width of the heads."""
    symmetry: Literal["orbits", "none"] = "orbits"
    """`orbits`: space group and Wyckoff positions are read from z, and only what they leave free is denoised; `none`:
    all crystals are taken for ones of P1, as published."""
    tolerance: float = Field(0.05, gt=0.0)
    """By how much atoms may lie off their symmetric positions, angstrom (`orbits`); it belongs to the data."""
    numbered_orbits: bool = False
    """Whether orbits are told apart by their number in the canonical description, also those of one element and Wyckoff
    position: z then says of each by itself where it stands, and noise is not exchanged among them. Only the encoder
    `equivariant` with the score network `fractional` is told, and there is an order only where symmetry is kept: of
    other models it changes nothing."""
    composition: Literal["counts", "fractions"] = "counts"
    """`counts`: how many atoms of each element, exactly; `fractions`: each atom's element by itself, as published."""
    lattice: Literal["log_stretch", "lengths_angles"] = "log_stretch"
    """What the lattice's six numbers are; `lengths_angles` is the published choice."""
    draws_per_crystal: int = Field(4, ge=1)
    """Noisy versions of each crystal in a training step: the decoder learns slowest, and the encoder costs most."""
    num_steps: int = Field(20, ge=1)
    """Steps of the default sampler."""
    sharpening: float = Field(10.0, ge=0.0)
    """How much faster coordinates move towards the end of the default sampler; see `FlowSampler`."""
    blur: float = Field(0.0, ge=0.0, le=1.0)
    """How far codes that the prior draws are blurred before the score network sees them, 0 not at all, 1 to pure noise;
    see `LatentPrior.blurred`. It goes with `score_network.knows_blur`."""
    properties: tuple[str, ...] = ()
    """Names of the properties that the heads predict from z."""
    encoder: EncoderConfig = EncoderConfig()
    score_network: ScoreNetworkConfig = ScoreNetworkConfig()
    noise: NoiseConfig = NoiseConfig()
    loss_weights: LossWeights = LossWeights()
    prototypes: bool = False
    """Whether the model keeps the compositions of its training crystals with what stands on which Wyckoff position,
    some 20 bytes a crystal, by which structure prediction tells the positions of compositions like them."""
    critic: int = Field(128, ge=0)
    """Width of the critic of the compositions that a learned prior gives, see `critic.py`; 0: none, and none without a
    learned prior or with `fractions`."""
    prior: PriorConfig | None = PriorConfig()
    """None: z is drawn from N(0, I), as published."""

    @field_validator("symmetry", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:
        # presets and the command line write None as the word "none", which is a name here
        return "none" if value is None else value

    @model_validator(mode="after")
    def _fits_together(self) -> "CDVAEConfig":
        if self.noise.sigma_min >= self.noise.sigma_max:
            raise ValueError(
                f"noise.sigma_min must be below noise.sigma_max, got {self.noise.sigma_min} and {self.noise.sigma_max}"
            )
        if self.score_network.knows_blur and self.score_network.kind != "fractional":
            raise ValueError(
                f"score_network.knows_blur is for the kind 'fractional', got {self.score_network.kind!r}; leave it out"
            )
        if self.score_network.knows_blur and self.prior is None:
            raise ValueError("score_network.knows_blur goes with a learned prior, along whose way codes are blurred")
        if self.blur > 0.0 and not (self.score_network.knows_blur and self.prior is not None):
            raise ValueError(
                f"blur={self.blur} needs a learned prior and a score network that knows of it; train with "
                "score_network.knows_blur=true and codes=kept, or set blur=0"
            )
        if self.symmetry == "orbits" and self.lattice != "log_stretch":
            raise ValueError("symmetry='orbits' needs lattice='log_stretch', in which the crystal families are planes")
        if self.has_numbers and self.noise.types != "fixed":
            raise ValueError(
                f"numbered orbits are in the order of their elements, which noise.types={self.noise.types!r} takes "
                "away; set numbered_orbits=false or noise.types=fixed"
            )
        return self

    @property
    def has_numbers(self) -> bool:
        """Whether orbits are numbered: asked for, with an order, and with networks that are told."""
        kinds = self.encoder.kind, self.score_network.kind
        return self.numbered_orbits and self.symmetry == "orbits" and kinds == ("equivariant", "fractional")
