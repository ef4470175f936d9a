"""A certificate authority of our own, made with openssl's command as an operator would."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a certificate and its key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates."""

    def __init__(self, directory: Path, openssl: str) -> None:
        self._directory = directory
        self._openssl = openssl
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                  "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        self.certificate = directory / "ca.pem"

    def sign(self, name: str, alternative: str) -> Certificate:
        """Make a certificate with a subject alternative name such as ``DNS:room-1``."""
        extension = self._directory / f"{name}.ext"
        extension.write_text(f"subjectAltName={alternative}\n")
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                  "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                  "-days", "2", "-extfile", extension.name, "-out", f"{name}.pem")  # fmt: skip
        return Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")

    def _run(self, *arguments: str) -> None:
        subprocess.run([self._openssl, *arguments], cwd=self._directory, check=True, capture_output=True, timeout=60)
