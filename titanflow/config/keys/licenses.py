"""The identifiers of licences that the Hub and SPDX know, and the addresses of their texts."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""
LICENSES = frozenset(_LICENSES.split())
"""The Hub's identifiers, as https://huggingface.co/docs/hub/repositories-licenses had them on 22 August 2026."""
LICENSE_EXPECTED = (
    "an identifier of https://huggingface.co/docs/hub/repositories-licenses, such as apache-2.0, mit or other"
)
SOURCE_EXPECTED = "an identifier of SPDX, such as CC-BY-4.0, or of the Hub, such as cc-by-4.0 or other"
_LINK = re.compile(r"https?://[^\s<>\"`]+")


def is_license(text: str) -> bool:
    """Whether a text is an identifier of the Hub, or an expression of SPDX's: ``MIT OR Apache-2.0``."""
    if text in LICENSES:
        return True
    # Importing it takes a while, and few configs state a licence.
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return False
    return True


def is_link(text: str) -> bool:
    """Whether a text is the address of a web page."""
    try:
        return bool(_LINK.fullmatch(text) and urlsplit(text).hostname)
    except ValueError:
        return False
