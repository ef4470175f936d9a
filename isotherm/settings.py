"""All settings of all processes, read from ``ISOTHERM_*`` variables, or from files that are named like them.

Where a variable is not set and a local stack runs in the data directory, its addresses are used: that is how
``isotherm query`` works beside ``isotherm up`` with no setting.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from isotherm import secret_files, stackfile
from isotherm.errors import SettingsError

PREFIX = "ISOTHERM_"

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d+)?")


def _from_json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"expected JSON: {error}") from error


# pydantic-settings would decode variables by itself, without naming the one that is no JSON.
_JSON = (NoDecode, BeforeValidator(_from_json))


class Settings(BaseSettings):
    """Every setting; the name of its variable is ``ISOTHERM_`` and the field's name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True)

    data_dir: Path = Field(Path(".isotherm"), description="Where a local stack keeps its files, and is found by.")
    secrets_dir: Path | None = Field(
        None,
        description="Folder with a file for each secret, named like its variable (ISOTHERM_REDIS, …); variables go before.",
    )
    kafka: str = Field("127.0.0.1:9092", description="Bootstrap servers of Kafka: host:port, comma-separated.")
    redis: str = Field(
        "redis://127.0.0.1:6379/0",
        description="URL of Redis 7 or later, or Valkey 7.2 or later; of a cluster, with several nodes: redis://a:7000,b:7000.",
    )
    mqtt: str = Field("127.0.0.1:1883", description="MQTT broker: host:port.", pattern=r"^\S+:\d+$")
    mqtt_version: Literal["auto", "5", "3.1.1"] = Field(
        "auto", description="MQTT version that the broker speaks: 5, 3.1.1; auto tries one after the other."
    )
    mqtt_client_id: str | None = Field(
        None, description="Name of the MQTT session, one for each connector; by default with a hash of the password in it."
    )
    mqtt_workers: int = Field(1, description="MQTT connectors that divide the devices among them.", ge=1, le=64)
    mqtt_worker: int = Field(0, description="Which of them this one is; the first is 0.", ge=0)
    mqtt_shared: bool = Field(
        False, description="Have the broker divide the messages instead (MQTT 5), if it keeps shared subscriptions."
    )
    mqtt_username: str | None = Field(None, description="User name for the MQTT broker.")
    mqtt_password: str | None = Field(None, description="Its password.", repr=False)
    mqtt_tls: bool = Field(False, description="Speak TLS to the MQTT broker.")
    mqtt_ca: Path | None = Field(None, description="Authorities (PEM) that the broker's certificate is checked against.")
    mqtt_certificate: Path | None = Field(None, description="Client certificate (PEM) for the MQTT broker.")
    mqtt_key: Path | None = Field(None, description="Its private key (PEM).")
    host: str = Field("127.0.0.1", description="Address that listeners bind to.")
    web_port: int = Field(7300, description="Port of the dashboards.", ge=0, le=65535)
    tcp_port: int = Field(7301, description="Port of the TCP connector.", ge=0, le=65535)
    coap_port: int = Field(7302, description="UDP port of the CoAP connector.", ge=0, le=65535)
    http_port: int = Field(7310, description="Port of the HTTP and WebSocket connector.", ge=0, le=65535)
    auth: Literal["open", "token"] = Field(
        "token", description="Who may send: open lets everybody, on loopback only; token asks for a device's token."
    )
    login: Literal["auto", "required"] = Field(
        "required",
        description="Who may see the pages: auto lets all in as an admin, on loopback only; required asks for a log-in.",
    )
    registration: Literal["open", "invite", "closed"] = Field(
        "invite",
        description="Who may create an account: everybody (open, as a viewer), who has a link (invite), nobody (closed).",
    )
    session_idle_hours: float = Field(12, description="A log-in that is not used for so long is over, h.", gt=0)
    session_hours: float = Field(168, description="A log-in is over after so long, h.", gt=0)
    api_rate: float = Field(50, description="Requests a second that a token may make, in the long run.", gt=0)
    api_burst: int = Field(200, description="Requests that it may make at once.", ge=1)
    web_origin: str = Field(
        "",
        description="What browsers call the dashboards, such as https://iot.example; needed behind a proxy that ends TLS.",
    )
    web_proxies: str = Field(
        "", description="Addresses or networks of proxies whose X-Forwarded-For is believed, comma-separated."
    )
    oidc_issuer: str = Field(
        "", description="Address of an OpenID Connect provider that people may log in with; none without."
    )
    oidc_client_id: str = Field("", description="What it calls Isotherm.")
    oidc_client_secret: str | None = Field(None, description="The secret that goes with it.", repr=False)
    oidc_scopes: str = Field("openid profile email", description="Scopes that are asked for.")
    oidc_name_claim: str = Field("preferred_username", description="Claim of the ID token that is the name of the user.")
    oidc_role_claim: str = Field("roles", description="Claim of the ID token that holds their groups or roles.")
    oidc_roles: Annotated[dict[str, Literal["viewer", "operator", "admin"]], *_JSON] = Field(
        {},
        description='What these may do, JSON: {"iot-admins": "admin", "*": "viewer"}; * is everybody, others are refused.',
    )
    url: str = Field(
        "",
        description="The platform's pages, https://HOST, for commands that are run elsewhere: they ask its REST API.",
    )
    api_token: str | None = Field(
        None, description="Token that they show, from `isotherm tokens create`; on the store's machine none.", repr=False
    )
    tls_certificate: Path | None = Field(None, description="Certificate chain (PEM) of the TLS listeners; none without.")
    tls_key: Path | None = Field(None, description="Its private key (PEM).")
    tls_client_ca: Path | None = Field(
        None, description="Authorities (PEM) whose client certificates name devices; clients need one when it is set."
    )
    tcp_tls_port: int = Field(7312, description="Port of the TCP connector's TLS listener.", ge=0, le=65535)
    http_tls_port: int = Field(7313, description="Port of the HTTP connector's TLS listener.", ge=0, le=65535)
    coap_tcp_port: int = Field(7314, description="Port of the CoAP connector over TCP.", ge=0, le=65535)
    coap_tls_port: int = Field(7315, description="Port of the CoAP connector's TLS listener.", ge=0, le=65535)
    reuse_port: bool = Field(False, description="Let several processes listen on a port (SO_REUSEPORT).")
    tcp_format: Literal["auto", "senml", "influx", "graphite"] = Field(
        "auto", description="What TCP peers send: senml, influx, graphite; auto looks at their first line."
    )
    influx_device_tags: str = Field(
        "device,host", description="Tags that name the device in InfluxDB lines, comma-separated; the first one counts."
    )
    graphite_prefix: str = Field("", description="What Graphite paths have before the device, such as collectd.")
    decoders: str = Field(
        "", description="Python files with decoders of your own, comma-separated; see connectors/README.md."
    )
    agents_path: str = Field(
        "", description="Folders with analytics of your own, colon-separated; by default agents/ in the data directory."
    )
    analytics: Annotated[dict[str, dict[str, Any]], *_JSON] = Field(
        {},
        description='Parameters of analytics, JSON: {"presence": {"offline_after": 10}}; `agent enable --set` goes before.',
    )
    hang_seconds: float = Field(
        15.0, description="How long an analytic may be busy with some records before its process is killed, s.", ge=3
    )
    max_connections: int = Field(50_000, description="Connections of one connector process.", ge=1)
    max_connections_per_peer: int = Field(
        12_000, description="Connections from one address: many devices may share one behind a router.", ge=1
    )
    health_port: int = Field(0, description="Port of /healthz, /readyz, /metrics; 0 picks a free one.", ge=0, le=65535)
    hosts: Literal["off", "podman", "kubernetes"] = Field(
        "off", description="What runs virtual hosts: podman on this machine, kubernetes, or nothing (off)."
    )
    hosts_image: str = Field(
        "localhost/isotherm/host:latest", description="Image of virtual hosts; `make host-image` builds it.", min_length=1
    )
    hosts_network: str = Field(
        "10.90.0.0/16", description="Where virtual hosts of podman have their networks, of 16 addresses each."
    )
    hosts_ports: str = Field(
        "80,443,1883,8883,5683/udp,7300-7315,8000-8099",
        description="Ports that a virtual host's address in Kubernetes has beside 22; those of podman have all.",
    )
    hosts_cluster_networks: str = Field(
        "10.42.0.0/16,10.43.0.0/16,10.244.0.0/16",
        description="Networks of the cluster's pods and services: no virtual host reaches them, nor they it.",
    )
    hosts_storage_class: str = Field(
        "", description="Storage class of their volumes in Kubernetes; by default the cluster's."
    )
    partitions: int = Field(8, description="Partitions of every topic: the shards. Fixed once data is stored.", ge=1)
    start_seconds: float = Field(
        0,
        description="How long processes wait at their start for the store and Kafka; 0 ends them with an error at once.",
        ge=0,
    )
    replication: int = Field(1, description="Replicas of every topic.", ge=1)
    group_session_seconds: float = Field(
        30.0, description="Kafka's group session and rebalance time-out, s; a first join may take half of it.", ge=6
    )
    linger_ms: float = Field(20.0, description="How long intake gathers readings before it sends a pack, ms.", ge=0)
    embedded_mqtt: Literal["auto", "mosquitto", "amqtt"] = Field(
        "auto", description="MQTT broker of the local stack: mosquitto, amqtt, or mosquitto where it is installed (auto)."
    )
    broker_memory_mib: int = Field(
        512, description="The embedded broker, which never forgets, is started anew when it holds so much, MiB.", ge=16
    )
    log_json: bool = Field(False, description="Log one JSON object a line.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")

    @model_validator(mode="after")
    def _open_on_loopback_only(self) -> Self:
        if self.auth == "open" and not is_loopback(self.host):
            raise ValueError(
                f"{PREFIX}AUTH is open, which lets everybody send, and others can reach {PREFIX}HOST {self.host}; "
                f"set {PREFIX}AUTH=token"
            )
        return self

    @model_validator(mode="after")
    def _auto_login_on_loopback_only(self) -> Self:
        if self.login == "auto" and (self.web_origin or not is_loopback(self.host)):
            where = f"{PREFIX}WEB_ORIGIN {self.web_origin}" if self.web_origin else f"{PREFIX}HOST {self.host}"
            raise ValueError(
                f"{PREFIX}LOGIN is auto, which lets everybody in as an admin, and others can reach the pages "
                f"({where}); set {PREFIX}LOGIN=required"
            )
        return self

    @model_validator(mode="after")
    def _web_addresses(self) -> Self:
        if self.web_origin and not _ORIGIN.fullmatch(self.web_origin):
            raise ValueError(
                f"{PREFIX}WEB_ORIGIN is {self.web_origin!r}, expected https://HOST or https://HOST:PORT, in lower case"
            )
        for one in self.trusted_proxies():
            try:
                ipaddress.ip_network(one, strict=False)
            except ValueError as error:
                raise ValueError(
                    f"{PREFIX}WEB_PROXIES has {one!r}, expected an address such as 10.0.0.4 or 10.0.0.0/24"
                ) from error
        return self

    @model_validator(mode="after")
    def _identity_provider(self) -> Self:
        if not self.oidc_issuer:
            return self
        parts = urlsplit(self.oidc_issuer)
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
            raise ValueError(f"{PREFIX}OIDC_ISSUER is {self.oidc_issuer!r}, expected https://HOST/…")
        if not self.oidc_client_id or not self.oidc_roles:
            lacking = "OIDC_ROLES" if self.oidc_client_id else "OIDC_CLIENT_ID"
            raise ValueError(f"{PREFIX}OIDC_ISSUER is set, {PREFIX}{lacking} is not: both are needed")
        if not self.web_origin and not is_loopback(self.host):
            raise ValueError(f"{PREFIX}OIDC_ISSUER needs {PREFIX}WEB_ORIGIN: the provider sends browsers back to it")
        return self

    def trusted_proxies(self) -> list[str]:
        """Return the addresses and networks of ``web_proxies``."""
        return [one.strip() for one in self.web_proxies.split(",") if one.strip()]

    @model_validator(mode="after")
    def _one_of_those_that_divide(self) -> Self:
        if self.mqtt_worker >= self.mqtt_workers:
            raise ValueError(
                f"{PREFIX}MQTT_WORKER is {self.mqtt_worker}, expected less than {PREFIX}MQTT_WORKERS, {self.mqtt_workers}: "
                "the first is 0"
            )
        if self.mqtt_shared and self.mqtt_version == "3.1.1":
            raise ValueError(f"{PREFIX}MQTT_SHARED needs MQTT 5, {PREFIX}MQTT_VERSION is 3.1.1: set {PREFIX}MQTT_WORKERS")
        if self.mqtt_shared and self.mqtt_workers > 1:
            raise ValueError(
                f"{PREFIX}MQTT_SHARED has the broker divide the messages, {PREFIX}MQTT_WORKERS the connectors: set one"
            )
        return self

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Read the settings: overrides that are not None, variables, files, the running local stack's, defaults.

        Raises:
            SettingsError: one of them has an impossible value, or the files cannot be used.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        files = cls._from_files(given)
        data_dir = Path(given.get("data_dir") or os.environ.get(f"{PREFIX}DATA_DIR") or cls.model_fields["data_dir"].default)
        stack = stackfile.read(data_dir)
        if stack is not None:
            for name, value in stack.settings.items():
                if f"{PREFIX}{name.upper()}" not in os.environ:
                    given.setdefault(name, value)
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:
                raise SettingsError(first["msg"].removeprefix("Value error, ")) from error
            name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
            where = f", from {files[name]}," if name in files else ""
            problem = first["msg"].removeprefix("Value error, ")
            raise SettingsError(f"{name}{where} is {first.get('input')!r}: {problem}") from error

    @classmethod
    def _from_files(cls, given: dict[str, Any]) -> dict[str, Path]:
        """Add what is in files to what is given, where neither that nor a variable says it; returns where each is from."""
        folder = given.get("secrets_dir") or os.environ.get(f"{PREFIX}SECRETS_DIR")
        if not folder:
            return {}
        fields = {f"{PREFIX}{name.upper()}": name for name in cls.model_fields if name != "secrets_dir"}
        found: dict[str, Path] = {}
        for variable, text in secret_files.read(Path(folder), fields).items():
            name = fields[variable]
            if text and variable not in os.environ and name not in given:
                found[variable] = Path(folder) / variable
                given[name] = text
        return found

    def environment(self) -> dict[str, str]:
        """Return the variables that hand exactly these settings to a child process, which reads no files itself."""
        values = self.model_dump(mode="json", exclude_none=True) | {"secrets_dir": ""}
        return {
            f"{PREFIX}{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in values.items()
        }


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
