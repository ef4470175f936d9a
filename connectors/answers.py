"""What a connection is told: acknowledgements and errors as JSON objects, in the order of its inputs."""

from __future__ import annotations

from collections.abc import Mapping

from connectors.receipt import Receipt

Answer = Mapping[str, object]


class Answers:
    """The inputs of one connection that are not answered yet.

    Attributes:
        unacknowledged: Readings in them, the refused ones included.
    """

    __slots__ = ("_acknowledged", "_receipts", "unacknowledged")

    def __init__(self) -> None:
        self.unacknowledged = 0
        self._acknowledged = 0  # of the whole connection
        self._receipts: list[Receipt] = []

    def __bool__(self) -> bool:
        return bool(self._receipts)

    @property
    def is_due(self) -> bool:
        """Whether the next input can be answered."""
        return bool(self._receipts) and self._receipts[0].is_durable

    def expect(self, receipt: Receipt) -> None:
        """Another input was taken in."""
        self._receipts.append(receipt)
        self.unacknowledged += receipt.accepted + receipt.rejected

    def due(self) -> list[Answer]:
        """Return what can be said now: each refusal, and how many readings of the connection Kafka has."""
        answers: list[Answer] = []
        accepted = skewed = 0
        while self.is_due:
            receipt = self._receipts.pop(0)
            self.unacknowledged -= receipt.accepted + receipt.rejected
            accepted += receipt.accepted
            skewed += receipt.skewed
            if receipt.rejected:
                first = receipt.refusals[0]
                answers.append(error(first.reason, first.detail, receipt.rejected))
        self._acknowledged += accepted
        if accepted:
            answers.append({"ack": self._acknowledged, "skewed": skewed} if skewed else {"ack": self._acknowledged})
        return answers


def error(reason: str, detail: str, count: int = 0) -> Answer:
    """Say that ``count`` inputs were refused, and why the first of them was."""
    return {"error": {"reason": reason, "detail": detail, "count": count}}
