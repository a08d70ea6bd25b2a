"""What a run writes beside its voxels: receipts, failures, events, heartbeats."""
