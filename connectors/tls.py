"""TLS listeners, and the device that a client's certificate names."""

from __future__ import annotations

import asyncio
import ssl

from isotherm.errors import SettingsError
from isotherm.names import is_device_name
from isotherm.settings import Settings


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what a TLS listener needs, or None when the settings name no certificate.

    Raises:
        SettingsError: a file cannot be read, or certificate and key do not belong together.
    """
    if settings.tls_certificate is None:
        if settings.tls_client_ca is not None:
            raise SettingsError("ISOTHERM_TLS_CLIENT_CA is set and ISOTHERM_TLS_CERTIFICATE is not")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the TLS certificate, key or client authority cannot be used: {error}") from error
    return context


def certified_device(transport: asyncio.BaseTransport | None) -> str | None:
    """Return the device that the peer's certificate names, or None when it showed none.

    The first name in the subject alternative name that can name a device counts: a DNS name, or a URI such as ``urn:dev:…``.
    """
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        return None
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "URI")]
    return next((name for name in names if is_device_name(name)), None)
