"""Protocols in: each connector turns what devices send into packs on Kafka. See README.md beside this file."""
