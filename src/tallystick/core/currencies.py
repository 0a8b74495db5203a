"""Currencies of ISO 4217 and the decimals of their minor unit.

For: reading and showing prices. Holds true: agrees with the maintained table of the `iso4217` package, by test.
Codes without a minor unit (precious metals, testing codes) are not currencies one can price in, so they are absent.
Must not: know symbols or names; Babel does that where words are made.
"""

from __future__ import annotations

from typing import Final

_WITH_0_DECIMALS: Final = """
BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF
"""

_WITH_2_DECIMALS: Final = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF
IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK
MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP
SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG
YER ZAR ZMW ZWG
"""

_WITH_3_DECIMALS: Final = """
BHD IQD JOD KWD LYD OMR TND
"""

_WITH_4_DECIMALS: Final = """
CLF UYW
"""

MINOR_UNIT_DECIMALS: Final[dict[str, int]] = {
    **dict.fromkeys(_WITH_0_DECIMALS.split(), 0),
    **dict.fromkeys(_WITH_2_DECIMALS.split(), 2),
    **dict.fromkeys(_WITH_3_DECIMALS.split(), 3),
    **dict.fromkeys(_WITH_4_DECIMALS.split(), 4),
}
