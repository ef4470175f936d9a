"""The local stack: ``isotherm up``, the whole pipeline on one machine from Python wheels alone.

``parts`` says what runs, ``supervisor`` keeps it running, ``ports`` finds what is in the way, ``screen`` shows it, ``stack``
puts them together.
"""
