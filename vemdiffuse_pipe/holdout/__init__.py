"""Sections left out and made by each model: which model is best on this very volume."""
