"""Who a peer is; most of it is tested with each protocol."""

from dataclasses import replace

import pytest

from isotherm.errors import Unavailable
from tests.support.intake import Bench


async def test_the_type_of_a_device_is_what_the_registry_says() -> None:
    bench = Bench()
    for name in ("front", "plain"):
        bench.registry.add(name)
    bench.registry.devices["front"] = replace(bench.registry.devices["front"], type="door")
    doorkeeper = bench.site.doorkeeper
    assert [await doorkeeper.type_of(name) for name in ("front", "plain", "stranger")] == ["door", "", ""]
    bench.registry.is_away = True
    assert await doorkeeper.type_of("front") == "door"  # known for some seconds
    with pytest.raises(Unavailable):
        await doorkeeper.type_of("unasked")
