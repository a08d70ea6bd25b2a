"""Watching a run from outside: status, block map, event log, tally."""
