"""How numbers come about: work in several processes or on a cluster, intervals, nearest vectors, divergences."""
