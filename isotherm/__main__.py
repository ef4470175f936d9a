"""``python -m isotherm`` is ``isotherm``."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C while it is imported ends the process at once and without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from isotherm.cli import main as run

    run()


if __name__ == "__main__":  # processes that are forked import this module, too
    main()
