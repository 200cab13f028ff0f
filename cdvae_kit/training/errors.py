"""What can go wrong in a run that no setting could be refused for."""


class TrainingDivergedError(RuntimeError):
    """The loss stopped being a number, and skipping steps did not help."""


class ResumeError(ValueError):
    """A run that cannot be gone on with: other data, another model, other settings, or nothing there."""
