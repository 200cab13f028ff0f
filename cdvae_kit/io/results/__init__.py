"""Results on the disk: tables and JSON that appear whole, and a store of what need not be computed twice."""
