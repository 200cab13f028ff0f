"""Evaluations and experiments as one HTML file each, and which crystals a reader should look at."""
