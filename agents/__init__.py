"""The Faust worker and the analytics that it runs."""
