"""What devices run: a file to copy for each language. Nothing here imports the rest of Isotherm, nor needs it.

device.py                 Python 3.9 and later, the standard library alone
micropython/isotherm.py   MicroPython
c/isotherm.c, isotherm.h  C99 and POSIX sockets
"""
