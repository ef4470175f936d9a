"""Writes infra/sample.env from the settings: ``python infra/sample_env.py``. A test compares them."""

from pathlib import Path

from isotherm.settings import PREFIX, Settings

HEAD = "# Every setting of Isotherm with its default. Uncomment and change what you need; a test keeps this list complete."


def main() -> None:
    """Write the file."""
    blocks = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else field.default
        blocks.append(f"# {field.description}\n# {PREFIX}{name.upper()}={default}\n")
    Path(__file__).with_name("sample.env").write_text("\n".join([HEAD + "\n", *blocks]))


if __name__ == "__main__":
    main()
