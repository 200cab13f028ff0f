"""Crystals from and into files: one registry of formats, records that fail alone, files that appear whole."""
