"""Vectors of structures and compositions: CrystalNN order parameters and Magpie statistics, as published."""
