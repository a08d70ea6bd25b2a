"""Models behind one protocol: cards, checkpoints, interpolation, the lean diffusion network, noise."""
