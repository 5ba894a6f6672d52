"""The wheel's README and addresses. A package index has no checkout beside the README: links and pictures that are
relative there become absolute, or, as long as the repository has no public address, text.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")


def readme(text: str, repository: str) -> str:
    """README.md as a package index shows it. `repository`: the address of the public repository, or nothing."""

    def picture(found: re.Match[str]) -> str:
        if _is_absolute(found["target"]):
            return found[0]
        return f"![{found['text']}]({repository}/raw/main/{found['target']})" if repository else ""

    def link(found: re.Match[str]) -> str:
        if _is_absolute(found["target"]):
            return found[0]
        return f"[{found['text']}]({repository}/blob/main/{found['target']})" if repository else found["text"]

    shown = _LINK.sub(link, _PICTURE.sub(picture, text))
    return re.sub(r"\n{3,}", "\n\n", shown)  # where a picture was


def urls(repository: str) -> dict[str, str]:
    """The addresses that a package index shows beside the README; none without a repository."""
    if not repository:
        return {}
    return {
        "Repository": repository,
        "Documentation": f"{repository}/tree/main/docs",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


def _is_absolute(target: str) -> bool:
    return re.match(r"[a-z]+:|#", target) is not None


class WheelMetadata(MetadataHookInterface):
    """hatchling calls it for each build, editable installs included."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = self.config["repository"].rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readme(text, repository)}
        metadata["urls"] = urls(repository)
