"""All HTML pages, added to the app."""

from __future__ import annotations

from fastapi import FastAPI

from dashboards.access import account, devices, hosts, log_in, notices, overview, single_sign_on, users
from dashboards.access.oidc import Provider
from dashboards.access.site import Site
from isotherm.configuration import Configurations
from isotherm.registry import Registry


def add(app: FastAPI, site: Site, registry: Registry, configurations: Configurations, provider: Provider | None) -> None:
    """Add them."""
    notices.add(app, site)
    log_in.add(app, site)
    account.add(app, site)
    if provider is not None:
        single_sign_on.add(app, site, provider)
    users.add(app, site)
    devices.add(app, site, registry, configurations)
    hosts.add(app, site)
    overview.add(app, site)
