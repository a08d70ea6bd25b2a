"""Levels of a pyramid, each a job: by `vemdiffuse pyramid`, at the end of a run, and in an export."""
