"""Firmware: images that are kept signed, and given to devices by rollouts (`isotherm.configuration`).

image.py      what an image is
signing.py    its signature
store.py      where images and the keys that are trusted are kept
"""

from isotherm.firmware.image import Image
from isotherm.firmware.store import Firmware

__all__ = ["Firmware", "Image"]
