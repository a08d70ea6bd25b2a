"""`python -m vemdiffuse_pipe` is `vemdiffuse`."""

from vemdiffuse_pipe.cli import main

if __name__ == "__main__":
    main()
