"""Cutting training examples, and the training loop."""
