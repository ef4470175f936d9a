"""Images: signed, kept as they are, and read in parts."""

from __future__ import annotations

import msgspec
import pytest

from isotherm.errors import BadField, SettingsError
from isotherm.firmware import Firmware, Image, signing, store
from isotherm.store.client import Client

pytestmark = pytest.mark.servers

KEY = signing.new_key()
DATA = bytes(range(256)) * 300


@pytest.fixture
async def firmware(redis: Client) -> Firmware:
    """A store that trusts a key."""
    found = Firmware(redis)
    assert await found.trust(signing.public_of(KEY)) == signing.key_id(signing.public_of(KEY))
    return found


async def test_an_image_is_kept_as_it_is(firmware: Firmware) -> None:
    made = signing.signed(KEY, "lamp", "1.2.0", DATA)
    kept = await firmware.add(made, DATA, "eve")
    assert (kept.by, kept.size, kept.key) == ("eve", len(DATA), signing.key_id(signing.public_of(KEY)))
    assert await firmware.get("lamp", "1.2.0") == kept
    assert await firmware.read(kept, 0, len(DATA)) == DATA
    assert await firmware.read(kept, 1000, 1010) == DATA[1000:1010]
    assert await firmware.add(made, DATA, "bob") == kept  # again
    later = await firmware.add(signing.signed(KEY, "lamp", "1.3.0", DATA), DATA, "eve")
    assert [one.id for one in await firmware.all()] == ["lamp/1.3.0", "lamp/1.2.0"]
    await firmware.remove(kept)
    assert await firmware.get("lamp", "1.2.0") is None
    assert await firmware.read(later, 0, 10) == DATA[:10]  # the same bytes, under another name
    await firmware.remove(later)
    assert await firmware.read(later, 0, 10) == b""


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"version": "1.2.1"},
        {"signature": ""},
        {"signature": "no Base64 \N{SNOWMAN}"},
        {"signature": "A" * 86 + "=="},
    ],
)
async def test_an_image_that_is_not_signed_is_not_kept(firmware: Firmware, change: dict[str, str]) -> None:
    made = msgspec.structs.replace(signing.signed(KEY, "lamp", "1.2.0", DATA), **change)
    with pytest.raises(BadField) as error:
        await firmware.add(made, DATA, "eve")
    assert error.value.field == "signature"
    with pytest.raises(BadField):
        await firmware.add(signing.signed(KEY, "lamp", "1.2.0", DATA), DATA + b"x", "eve")
    assert await firmware.all() == []


async def test_only_keys_that_are_trusted_count(firmware: Firmware) -> None:
    other = signing.new_key()
    made = signing.signed(other, "lamp", "1.2.0", DATA)
    with pytest.raises(BadField, match="trusted"):
        await firmware.add(made, DATA, "eve")
    id = await firmware.trust(signing.public_of(other))
    assert set(await firmware.keys()) == {id, signing.key_id(signing.public_of(KEY))}
    assert (await firmware.add(made, DATA, "eve")).key == id
    assert await firmware.distrust(id)
    assert not await firmware.distrust(id)
    with pytest.raises(BadField):
        await firmware.add(signing.signed(other, "lamp", "1.2.1", DATA), DATA, "eve")


async def test_a_version_is_never_another_image(firmware: Firmware, monkeypatch: pytest.MonkeyPatch) -> None:
    await firmware.add(signing.signed(KEY, "lamp", "1.2.0", DATA), DATA, "eve")
    with pytest.raises(SettingsError, match=r"another lamp/1\.2\.0"):
        await firmware.add(signing.signed(KEY, "lamp", "1.2.0", b"x"), b"x", "eve")
    monkeypatch.setattr(store, "MAX_IMAGES", 1)
    with pytest.raises(SettingsError, match="remove one"):
        await firmware.add(signing.signed(KEY, "lamp", "1.3.0", b"x"), b"x", "eve")


def test_a_key_goes_into_a_file_and_out_of_it() -> None:
    again = signing.key_from_pem(signing.key_to_pem(KEY))
    assert signing.public_of(again) == signing.public_of(KEY)
    assert signing.is_signed_by(signing.public_of(KEY), signing.signed(again, "lamp", "1", b"x"))
    for wrong in (b"", b"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(BadField):
            signing.key_from_pem(wrong)
    with pytest.raises(BadField):
        signing.key_id("AAAA")


@pytest.mark.parametrize(
    ("name", "version", "data"), [("", "1", b"x"), ("a/b", "1", b"x"), ("a", "../1", b"x"), ("a", "1", b"")]
)
def test_what_cannot_be_an_image(name: str, version: str, data: bytes) -> None:
    with pytest.raises(BadField):
        signing.signed(KEY, name, version, data)


def test_what_a_device_is_told() -> None:
    made: Image = signing.signed(KEY, "lamp", "1", b"x")
    told = made.for_device()
    assert told["path"] == "firmware/lamp/1"
    assert (told["sha256"], told["size"]) == (made.sha256, 1)
