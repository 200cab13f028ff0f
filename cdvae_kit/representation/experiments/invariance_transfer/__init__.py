"""The experiments `invariance-transfer` and `crystal-sensitivity`."""
