"""mkdocs' hooks: README and its neighbours become pages, reference pages come from the code, links keep their targets.

The pages of `docs/` are written for a code host too. There, links lead anywhere in the repository; on the site, a link
to what is no page becomes text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools import reference

ROOT = Path(__file__).parents[1]
# Files of the repository outside docs/ that are pages, by their place on the site.
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/FIGURES.md": "figures.md",
    "examples/three_people/README.md": "three-people.md",
}
MADE = {
    "reference/ct.md": reference.commands_page,
    "reference/ct-toml.md": reference.settings_page,
    "reference/steps.md": reference.steps_page,
}
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
# GitHub begins a list or a table right below a line of text; Python-Markdown wants an empty line before it.
_BEGINS = re.compile(r"^(?![|#]|- |\d+\. |  )(?P<before>.*\S.*)\n(?=\||- |\d+\. )", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/."""
    for source, place in BESIDE.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text(encoding="utf-8")))
    for place, make in MADE.items():
        files.append(File.generated(config, place, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The text of a page, with links that lead somewhere on the site."""
    place = page.file.src_uri
    source = next((of for of, at in BESIDE.items() if at == place), f"docs/{place}")
    parts = _FENCE.split(markdown)
    parts[::2] = [_linked(_BEGINS.sub(r"\g<before>\n\n", part), source, place, files) for part in parts[::2]]
    return "".join(parts)


def _linked(text: str, source: str, place: str, files: Files) -> str:
    def link(found: re.Match[str]) -> str:
        target, hash_, anchor = found["target"].partition("#")
        if not target or ":" in target:
            return found[0]
        wanted = _on_site(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        if wanted is None or files.get_file_from_path(wanted) is None:
            return found["text"]
        relative = posixpath.relpath(wanted, posixpath.dirname(place) or ".")
        return f"{found['picture']}[{found['text']}]({relative}{hash_}{anchor})"

    return _LINK.sub(link, text)


def _on_site(path: str) -> str | None:
    """Where a file of the repository is on the site; a folder is its README."""
    for name in (path, f"{path}/README.md"):
        if name in BESIDE:
            return BESIDE[name]
    if not path.startswith("docs/"):
        return None
    inside = path.removeprefix("docs/")
    return f"{inside}/README.md" if (ROOT / path).is_dir() else inside
