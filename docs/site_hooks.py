"""What MkDocs does not do by itself: links to files of the tree, tables made from the code."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\(((?:\.\./)+)((?!\.)[^)#]+)\)")
"""Links that may leave docs/: ](../../tests/...)."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take in every file of the tree that a page links to, under `tree/`."""
    for page in [file for file in files if file.is_documentation_page()]:
        for target in _targets(page):
            source = f"tree/{target}"
            if files.get_file_from_path(source) is None:
                files.append(File.generated(config, source, abs_src_path=str(ROOT / target)))
    return files


def _targets(page: File) -> Iterator[str]:
    folder = Path(page.src_uri).parent
    for dots, path in _LINK.findall(page.content_string):
        target = os.path.normpath(Path("docs") / folder / (dots + path))
        if not target.startswith(("docs", "..")) and (ROOT / target).is_file():
            yield Path(target).as_posix()


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/ to their copies, and fill in the tables."""
    folder = Path(page.file.src_uri).parent

    def turned(found: re.Match[str]) -> str:
        target = os.path.normpath(Path("docs") / folder / (found[1] + found[2]))
        if target.startswith(("docs", "..")):
            return found[0]
        return f"]({os.path.relpath(f'tree/{target}', folder or '.')})"

    markdown = _LINK.sub(turned, markdown)
    if "<!-- settings -->" in markdown:
        markdown = markdown.replace("<!-- settings -->", "\n".join(_settings()))
    if "<!-- layers -->" in markdown:
        markdown = markdown.replace("<!-- layers -->", "\n".join(_layers()))
    return markdown


def _settings() -> Iterator[str]:
    """A table per section of the settings, from their schema."""
    from geohsal.config import Config, config_schema, config_to_dict

    schema, defaults = config_schema(), config_to_dict(Config())
    sections = schema["$defs"]
    for name, entry in schema["properties"].items():
        reference = _reference(entry)
        if reference is None:
            continue
        yield f"\n### `{name}`\n"
        yield "| key | default | bounds | meaning |\n|---|---|---|---|"
        for key, field in sections[reference]["properties"].items():
            default = defaults[name][key]
            yield f"| `{name}.{key}` | `{_text(default)}` | {_bounds(field)} | {_meaning(field)} |"
    plain = [name for name, entry in schema["properties"].items() if _reference(entry) is None]
    named = [f"`{name}` (default `{_text(defaults[name])}`)" for name in plain]
    yield f"\nBesides: {', '.join(named)}."


def _reference(entry: dict[str, Any]) -> str | None:
    text = entry.get("$ref") or (entry.get("allOf") or [{}])[0].get("$ref", "")
    return text.rsplit("/", 1)[-1] or None


def _text(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


_BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
}


def _bounds(field: dict[str, Any]) -> str:
    kinds = [field, *field.get("anyOf", [])]
    words = [
        text.format(kind[key]) for kind in kinds for key, text in _BOUNDS.items() if key in kind
    ]
    choices = [value for kind in kinds for value in kind.get("enum", [])]
    return ", ".join(words or [f"`{value}`" for value in choices])


def _meaning(field: dict[str, Any]) -> str:
    return str(field.get("description", "")).replace("|", r"\|").replace("\n", " ")


def _layers() -> Iterator[str]:
    """A table per layer of the review file, from what writer and reader follow."""
    from geohsal.io.review_schema import LAYERS

    for layer in LAYERS:
        yield f"\n## `{layer.name}`\n\n{layer.description}.\n"
        yield "| field | type | in the form | note |\n|---|---|---|---|"
        for field in layer.fields:
            notes = [field.note, "to be filled in" if field.editable else ""]
            note = "; ".join(text for text in notes if text).replace("|", r"\|")
            yield f"| `{field.name}` | {field.kind} | {field.alias} | {note} |"
