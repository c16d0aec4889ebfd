"""`python -m dragonfly` is the same as `dragonfly`."""

from dragonfly.cli import main

if __name__ == "__main__":
    main()
