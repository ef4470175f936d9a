"""Devices that do not exist, and the publisher for a Raspberry Pi that does."""
