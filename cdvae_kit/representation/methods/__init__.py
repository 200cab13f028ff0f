"""What a user puts around their own encoder: probes and measures of it, and one file a self-supervised method."""
