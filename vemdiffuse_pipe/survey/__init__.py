"""Looking at a source before a run: contrast, bad sections, lost sections."""
