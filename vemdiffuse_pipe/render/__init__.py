"""One block: the science, a pure function."""
