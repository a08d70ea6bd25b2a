"""Models compared with ground truth, in tables."""
