"""Every connector keeps the promises of `tests/contracts/connector.py`; none is forgotten."""

from __future__ import annotations

import importlib
import pkgutil

import tests.connectors
from connectors.process import PROTOCOLS
from tests.contracts.connector import ConnectorContract


def test_every_connector_is_under_contract() -> None:
    for module in pkgutil.iter_modules(tests.connectors.__path__):
        if module.name.startswith("test_contract"):
            importlib.import_module(f"tests.connectors.{module.name}")
    under_contract = {one.protocol for one in ConnectorContract.__subclasses__()}
    assert under_contract == set(PROTOCOLS)
    assert len(under_contract) == 4
