"""What can go wrong in a run that no setting could be refused for."""

from cdvae_kit.io.result_folder import ResumeError as ResumeError  # raised by runs of every kind


class TrainingDivergedError(RuntimeError):
    """The loss stopped being a number, and skipping steps did not help."""
