"""The experiment `curriculum`."""
