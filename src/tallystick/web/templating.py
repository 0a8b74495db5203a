"""How pages are made of templates: one set of rules for the checkout page and the claim page.

Holds true: everything put into a page is escaped; a name that a template does not know is an error, never an empty
place. Must not: know what a page says.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

from jinja2 import Environment, PackageLoader, StrictUndefined

from tallystick.web import assets


def page_environment(labels: Mapping[str, str]) -> Environment:
    """The templates, with the paths of static files as `asset` and a page's labels as `t`."""
    environment = Environment(
        loader=PackageLoader("tallystick.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    paths = {name: asset.path for name, asset in assets.assets().items()}
    environment.globals.update(asset=paths, t=SimpleNamespace(**labels))
    return environment
