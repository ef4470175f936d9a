"""``python -m isotherm`` is ``isotherm``."""

from isotherm.cli import main

if __name__ == "__main__":  # processes that are forked import this module, too
    main()
