"""Who is told what, and how fast."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

from dashboards.audience import Audience


@dataclass(eq=False)
class Ear:
    """A listener that writes down what it is told."""

    heard: list[str] = field(default_factory=list)
    behind: bool = False

    def is_behind(self) -> bool:
        return self.behind


def hear(what: str):  # type: ignore[no-untyped-def]
    return lambda ear: ear.heard.append(what)


def test_one_who_is_behind_misses_changes_and_is_told_everything_when_it_can_take_it() -> None:
    quick, slow = Ear(), Ear(behind=True)
    audience = Audience[Ear]()
    audience.add(quick)
    audience.add(slow)
    audience.tell(hear("1"))
    slow.behind = False  # not told 2 alone: it has missed 1
    audience.tell(hear("2"))
    assert (quick.heard, slow.heard, audience.is_behind) == (["1", "2"], [], True)
    audience.catch_up(hear("everything"))
    audience.catch_up(hear("everything"))
    audience.tell(hear("3"))
    assert (quick.heard, slow.heard, audience.is_behind) == (["1", "2", "3"], ["everything", "3"], False)


def test_it_waits_for_one_that_stays_behind() -> None:
    slow = Ear(behind=True)
    audience = Audience[Ear]()
    audience.add(slow)
    audience.tell(hear("1"))
    audience.catch_up(hear("everything"))
    assert slow.heard == []
    assert audience.is_behind


def test_one_that_fails_does_not_keep_others_from_their_news() -> None:
    def fail_or_hear(ear: Ear) -> None:
        if ear is bad:
            raise RuntimeError("cannot draw")
        ear.heard.append("1")

    bad, good = Ear(), Ear()
    audience = Audience[Ear]()
    for ear in (bad, good):
        audience.add(ear)
    audience.tell(fail_or_hear)
    assert good.heard == ["1"]


def test_who_is_gone_or_let_go_is_told_nothing_and_kept_by_nobody() -> None:
    ear, gone = Ear(behind=True), Ear(behind=True)
    audience = Audience[Ear]()
    audience.add(ear)
    audience.add(gone)
    audience.tell(hear("1"))
    audience.discard(ear)
    del gone
    gc.collect()
    assert (len(audience), audience.is_behind, ear.heard) == (0, False, [])
