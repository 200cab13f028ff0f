"""The experiments `obow` and `obow-crystals`."""
