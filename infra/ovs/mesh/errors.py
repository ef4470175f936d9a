"""What can go wrong, as the one line that is shown."""


class OverlayError(Exception):
    """It cannot be done; the message says what was found, what was expected and how to mend it."""


class NodeListError(OverlayError):
    """The node list is wrong."""


class CommandError(OverlayError):
    """A program that was needed has failed."""
