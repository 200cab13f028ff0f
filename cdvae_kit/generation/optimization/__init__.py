"""Crystals with wanted properties: goals, constraints, ways through the latent space, judges, ranked candidates."""
