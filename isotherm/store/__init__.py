"""The series store: exact time series on plain Redis or Valkey.

``layout`` draws the bytes, ``commit.lua`` and ``writer`` put them there atomically, ``reader`` answers queries, ``client``
owns the connection.
"""
