"""The experiment `relative`."""
