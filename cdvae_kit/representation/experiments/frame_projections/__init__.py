"""The experiments `frame-projections` and `diffraction-frames`."""
