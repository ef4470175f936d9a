"""The pages: one file each, with a class for what one open session of it does."""
