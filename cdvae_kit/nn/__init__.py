"""Layers that know tensors, not crystals: MLPs, embeddings, messages, equivariant convolutions."""
