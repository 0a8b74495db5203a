"""Tallystick: self-hosted, non-custodial crypto payments.

For: the package's name and version. Holds true: importing it costs nothing and has no effect.
Must not: import anything else of the package, so that a part can be used without the rest.
"""

__version__ = "0.1.0"
