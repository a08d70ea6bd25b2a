"""Models to and from other programs: published checkpoints, standalone torch modules, the bioimage.io zoo."""
