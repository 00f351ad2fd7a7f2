"""A hook of mkdocs that shows the version of the package at the foot of each page."""

from mkdocs.config.defaults import MkDocsConfig

from lmstudio_integrations._support.environment import __version__


def on_config(config: MkDocsConfig) -> None:
    """Set what the theme shows there."""
    config.copyright = f"{config.site_name} {__version__}"
