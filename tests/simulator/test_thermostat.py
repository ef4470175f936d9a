"""What simulated devices do when they are asked."""

import pytest

from simulator.thermostat import Thermostat


def command(name: str, id: str = "1", **parameters: object) -> dict[str, object]:
    return {"id": id, "device": "room-1", "name": name, "parameters": parameters}


def test_an_offset_is_kept_and_told() -> None:
    thermostat = Thermostat()
    assert thermostat.reply(command("offset", celsius=2.5)) == {"id": "1", "device": "room-1", "result": {"celsius": 2.5}}
    assert thermostat.offset == 2.5


def test_a_command_that_comes_again_is_answered_again_and_not_done_again() -> None:
    thermostat = Thermostat()
    first = thermostat.reply(command("offset", celsius=2.5))
    thermostat.reply(command("offset", "2", celsius=1))
    assert thermostat.reply(command("offset", celsius=2.5)) == first
    assert thermostat.offset == 1


@pytest.mark.parametrize(
    "asked", [command("fly"), command("offset"), command("offset", celsius=99), command("offset", celsius="x")]
)
def test_what_it_cannot_do_it_says(asked: dict[str, object]) -> None:
    thermostat = Thermostat()
    assert set(thermostat.reply(asked)) == {"id", "device", "error"}
    assert thermostat.offset == 0
