"""The decisions of the product, as pure functions over values.

Holds true: nothing here performs I/O, reads a clock, draws a random number or uses a float; every
function gives the same answer for the same arguments. Depends on the standard library only.
Must not: import any other room of the code.
"""
