"""What a run leaves beside its voxels: receipts, blocks set aside, events, the journal of who is at what."""
