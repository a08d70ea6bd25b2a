"""What is done with models rather than with volumes: training, comparing, exporting."""
