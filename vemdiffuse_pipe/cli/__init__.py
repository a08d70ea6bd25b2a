"""The command line: a command parses, calls one library function, prints. Only the standard library and
click are imported until a command is chosen.
"""

from vemdiffuse_pipe.cli.entry import main

__all__ = ["main"]
