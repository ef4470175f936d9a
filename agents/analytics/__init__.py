"""The analytics that come with Isotherm, a file each."""
