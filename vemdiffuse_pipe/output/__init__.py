"""What a run writes around its voxels: identity, mask, provenance."""
