"""Prometheus metrics that several connectors keep."""

from __future__ import annotations

from prometheus_client import Gauge

connections = Gauge("isotherm_connections", "Open connections", ["protocol"])
