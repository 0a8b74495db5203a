"""QR codes of payment requests, as SVG.

For: the checkout page. Holds true: the code is drawn here from what the wallet will read (segno, ISO/IEC 18004), dark
on white with its quiet zone in every colour scheme, because many scanners need that. Must not: fetch anything.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Final

import segno

QUIET_ZONE_MODULES: Final = 4  # ISO/IEC 18004 section 9.1
ERROR_CORRECTION: Final = "m"  # 15 %: enough for a screen, and a smaller code reads more easily from afar


@lru_cache(maxsize=512)
def qr_svg(text: str) -> bytes:
    """The QR code of `text` as a complete SVG file that scales to its box."""
    out = BytesIO()
    code = segno.make(text, error=ERROR_CORRECTION, boost_error=False, micro=False)
    code.save(
        out,
        kind="svg",
        border=QUIET_ZONE_MODULES,
        dark="#000",
        light="#fff",
        xmldecl=False,
        omitsize=True,
        nl=False,
    )
    return out.getvalue()
