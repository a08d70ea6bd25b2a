"""What other programs and human eyes get: pyramids, exports, the manifest, the viewer."""
