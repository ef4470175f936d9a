"""Public keys: those that ssh-keygen makes are taken, and whatever else somebody may give is told apart."""

from __future__ import annotations

import base64
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from isotherm.errors import BadField
from isotherm.hosts.keys import MAX_KEYS, fingerprint, public_keys
from tests.contracts.hosts import ADA, BOB

KINDS = {"ed25519": 256, "ecdsa": 256, "ecdsa-384": 384, "ecdsa-521": 521, "rsa": 2048}


@pytest.fixture(scope="module")
def keygen(tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]) -> Callable[..., Path]:
    program = tool("ssh-keygen")

    def make(kind: str, bits: int) -> Path:
        path = tmp_path_factory.mktemp("keys") / "key"
        command = [
            program,
            "-q",
            "-t",
            kind.partition("-")[0],
            "-b",
            str(bits),
            "-N",
            "",
            "-C",
            "ada's key",
            "-f",
            str(path),
        ]
        subprocess.run(command, check=True)
        return path

    return make


@pytest.mark.parametrize(("kind", "bits"), KINDS.items())
def test_keys_of_all_kinds_are_taken_with_the_fingerprint_that_ssh_shows(
    kind: str, bits: int, keygen: Callable[..., Path], tool: Callable[..., str]
) -> None:
    path = keygen(kind, bits)
    text = path.with_suffix(".pub").read_text()
    assert public_keys(text) == (text.strip(),)
    shown = subprocess.run([tool("ssh-keygen"), "-l", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    assert fingerprint(text) == shown.split()[1]


def test_a_private_key_is_told_from_a_public_one(keygen: Callable[..., Path]) -> None:
    with pytest.raises(BadField, match="line 1 begins a private key, which nobody but its owner should have"):
        public_keys(keygen("ed25519", 256).read_text())


def test_a_weak_key_is_refused(keygen: Callable[..., Path]) -> None:
    with pytest.raises(BadField, match="is an RSA key of 1024 bits, which is too weak: at least 2048"):
        public_keys(keygen("rsa", 1024).with_suffix(".pub").read_text())


def test_a_file_may_have_several_with_comments_between_and_the_same_one_twice() -> None:
    assert public_keys(f"# mine\n\n{ADA}\n  {BOB}  \n{ADA}\n") == (ADA, BOB)


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(one)) + one for one in fields)).decode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no key"),
        ("# only a comment", "there is no key"),
        (f"{ADA}\nhello", "line 2 begins with 'hello' and not with one of ssh-ed25519"),
        (f'command="/bin/sh" {ADA}', "line 1 begins with 'command="),
        ("ssh-dss AAAAB3NzaC1kc3M=", "line 1 begins with 'ssh-dss'"),
        ("ssh-ed25519", "has no key behind ssh-ed25519"),
        ("ssh-ed25519 not-base64!", "has no key behind ssh-ed25519"),
        (ADA[:40], "has no key behind ssh-ed25519: it is cut off"),
        (ADA.replace("ssh-ed25519", "ssh-rsa"), "says ssh-rsa, and its key is of another kind"),
        (f"ssh-ed25519 {blob(b'ssh-ed25519', b'short')}", "is no Ed25519 key: it has not 32 bytes"),
        (
            f"ecdsa-sha2-nistp256 {blob(b'ecdsa-sha2-nistp256', b'nistp384', b'4' * 65)}",
            "has no point of the curve nistp256",
        ),
        (f"ssh-rsa {blob(b'ssh-rsa', b'')}", "is no RSA key: it has not an exponent and a modulus"),
        (f"ssh-rsa {blob(b'ssh-rsa', b'', bytes(256))}", "is no RSA key: exponent or modulus is impossible"),
        (f"{ADA} \x1b[2J", "such as cannot be read"),
        (f"{ADA} {'a' * 5_000}", "has more than 4000 characters"),
    ],
    ids=lambda value: str(len(value)),
)
def test_what_is_no_key_is_told_with_its_line_and_why(text: str, said: str) -> None:
    with pytest.raises(BadField) as refused:
        public_keys(text)
    assert said in str(refused.value)
    assert refused.value.field == "keys"


def test_there_are_no_more_than_a_host_needs() -> None:
    many = "\n".join(f"ssh-ed25519 {blob(b'ssh-ed25519', bytes([number]) * 32)}" for number in range(MAX_KEYS + 1))
    with pytest.raises(BadField, match=f"expected at most {MAX_KEYS}"):
        public_keys(many)


def test_security_keys_are_taken() -> None:
    kind = "sk-ssh-ed25519@openssh.com"
    line = f"{kind} {blob(kind.encode(), bytes(32), b'ssh:')}"
    assert public_keys(line) == (line,)
    kind = "sk-ecdsa-sha2-nistp256@openssh.com"
    point = b"\x04" + bytes(64)
    line = f"{kind} {blob(kind.encode(), b'nistp256', point, b'ssh:')}"
    assert public_keys(line) == (line,)
