"""Boxes, frames, block grids, the tile lattice and gaps: integers and exact fractions only."""
