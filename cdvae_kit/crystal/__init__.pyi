from .batch import CrystalBatch as CrystalBatch
from .batch import concatenate as concatenate
from .batch import ragged_index as ragged_index
