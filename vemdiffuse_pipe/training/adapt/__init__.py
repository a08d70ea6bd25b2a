"""The default model adapted to one volume, from the volume alone."""
