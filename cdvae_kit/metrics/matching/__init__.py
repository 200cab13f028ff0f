"""Whether two crystals are the same: matchers, reduced cells, what need not be compared, the training index."""
