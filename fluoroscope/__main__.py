"""`python -m fluoroscope` is `fluoro`."""

from fluoroscope.cli import main

if __name__ == "__main__":
    main()
