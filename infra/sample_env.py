"""Writes infra/sample.env from the settings: ``python infra/sample_env.py``. A test compares them."""

from pathlib import Path

from isotherm.settings import PREFIX, Settings

HEAD = "# Every setting of Isotherm with its default. Uncomment and change what you need; a test keeps this list complete."


def main() -> None:
    """Write the file."""
    blocks = [
        f"# {field.description}\n# {PREFIX}{name.upper()}={field.default}\n" for name, field in Settings.model_fields.items()
    ]
    Path(__file__).with_name("sample.env").write_text("\n".join([HEAD + "\n", *blocks]))


if __name__ == "__main__":
    main()
