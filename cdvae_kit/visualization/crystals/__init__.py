"""Single crystals, grids of them and the way from noise to a crystal, on paper and on a screen."""
