"""What a user may do."""

from __future__ import annotations

from enum import IntEnum

from isotherm.errors import BadField


class Role(IntEnum):
    """The roles, ascending: each may do what those below it may.

    A viewer sees everything but accounts; an operator changes devices, rules and alarms; an admin also users and settings.
    """

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """What people and the store call it."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """Return the role that is called ``word``.

        Raises:
            BadField: none is.
        """
        for role in cls:
            if role.word == word:
                return role
        raise BadField("role", f"{word[:40]!r} is no role, expected {', '.join(role.word for role in cls)}")
