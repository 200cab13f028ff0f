"""The experiments `functional-coverage` and `composition-coverage`."""
