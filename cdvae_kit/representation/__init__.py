"""Representations: encoders, probes and measures of them, self-supervised objectives, the experiments of their papers.

The modules are imported by name; `experiments.registry` knows the experiments without loading any.
"""
