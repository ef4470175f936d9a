"""Engines that call a function: one for each form of an analytic."""
