"""``python -m everserve``: the command line."""

from everserve.cli import main

if __name__ == "__main__":
    main()
