"""The text that the test models are trained on: comments and documents of the Go distribution.

Everything here is a pure function of the files under GOROOT: documents come in path order, the
held-out share is chosen by a hash of the file name, and nothing is sampled.
"""

import hashlib
import html
import pathlib
import re
from dataclasses import dataclass

# One Go token that can hide or be a comment. Alternatives are tried from the left at each position,
# so a // inside a string or a rune literal is consumed as part of that literal.
_TOKEN = re.compile(
    r"""(?P<line>//[^\n]*)
      | (?P<block>/\*.*?\*/)
      | "(?:\\.|[^"\\\n])*"
      | `[^`]*`
      | '(?:\\.|[^'\\\n])+'
    """,
    re.VERBOSE | re.DOTALL,
)
_DIRECTIVE = re.compile(r"//(?:go:|line |export |sys |extern | ?\+build|\s*ERROR)")
_COPYRIGHT = re.compile(r"Copyright .*\d{4}|SPDX-License-Identifier|Use of this source code")
_TAG = re.compile(r"<[^>]*>")

MIN_GROUP = 40  # characters; shorter comments ("// int32", "// unused") are not prose
MIN_DOCUMENT = 200
HELDOUT_SHARE = 48  # one file stem in this many


@dataclass(frozen=True)
class Document:
    path: str  # relative to GOROOT, with forward slashes
    text: str


def comment_groups(source):
    """Yields the comment groups of a Go file, without markers: adjacent // lines are one group."""
    group, end = [], None
    for m in _TOKEN.finditer(source):
        kind = m.lastgroup
        if kind is None:
            continue
        if kind == "block":
            if group:
                yield "\n".join(group)
                group, end = [], None
            yield "\n".join(line.strip().lstrip("*").strip() for line in m.group()[2:-2].split("\n")).strip()
            continue
        if group and (source[end : m.start()].strip() or source.count("\n", end, m.start()) != 1):
            yield "\n".join(group)
            group = []
        if not _DIRECTIVE.match(m.group()):
            line = m.group()[2:].rstrip()
            group.append(line[1:] if line.startswith(" ") else line)
        end = m.end()
    if group:
        yield "\n".join(group)


def _html_text(source):
    text = html.unescape(_TAG.sub("", re.sub(r"(?s)<!--.*?-->", "", source)))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _go_files(root):
    for path in sorted((root / "src").rglob("*.go"), key=lambda p: p.relative_to(root).as_posix()):
        parts = path.relative_to(root).parts
        # Vendored code has other authors and licences; testdata holds inputs of tests, not prose.
        if "vendor" not in parts and "testdata" not in parts:
            yield path


def _doc_files(root):
    found = [root / "README.md", root / "CONTRIBUTING.md"]
    found += (root / "doc").rglob("*.html")
    found += (root / "doc").rglob("*.md")
    found += (p for p in (root / "src").rglob("*.md") if not {"vendor", "testdata"} & set(p.relative_to(root).parts))
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def _is_heldout(path):
    # Files that share a stem (expr.go in go/types and in types2, asm_amd64.go and asm_arm64.go) are
    # often near copies, so they go to the same side.
    stem = re.split(r"[._]", path.name)[0]
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big") % HELDOUT_SHARE == 0


def collect(goroot):
    """Returns (training, heldout): two lists of Document. No comment group occurs twice, and no long
    line of a held-out document occurs in a training document."""
    root = pathlib.Path(goroot)
    seen, sides = set(), ([], [])
    for path in _doc_files(root):
        text = path.read_text(encoding="utf-8")
        text = _html_text(text) if path.suffix == ".html" else text.strip()
        sides[_is_heldout(path)].append(Document(path.relative_to(root).as_posix(), text))
    for path in _go_files(root):
        source = path.read_text(encoding="utf-8")
        if re.search(r"(?m)^// Code generated .* DO NOT EDIT\.$", source):
            continue
        groups = []
        for group in comment_groups(source):
            key = " ".join(group.split())
            if len(key) < MIN_GROUP or key in seen or _COPYRIGHT.search(group):
                continue
            seen.add(key)
            groups.append(group)
        sides[_is_heldout(path)].append(Document(path.relative_to(root).as_posix(), "\n\n".join(groups)))
    training, heldout = ([d for d in side if len(d.text) >= MIN_DOCUMENT] for side in sides)
    trained = {line.strip() for d in training for line in d.text.split("\n")}
    clean = []
    for d in heldout:
        lines = [x for x in d.text.split("\n") if len(x.strip()) < MIN_GROUP or x.strip() not in trained]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        if len(text) >= MIN_DOCUMENT:
            clean.append(Document(d.path, text))
    return training, clean


def heldout_excerpt(heldout, limit):
    """Returns at most limit bytes of held-out text: whole paragraphs, documents in the order of a hash
    of their paths so that the excerpt is spread over the tree, a few thousand bytes from each."""
    pieces, size = [], 0
    for d in sorted(heldout, key=lambda d: hashlib.sha256(d.path.encode()).digest()):
        taken = 0
        for paragraph in d.text.split("\n\n"):
            n = len(paragraph.encode()) + 2
            if taken + n > 3000:
                break
            if size + n > limit:
                return "\n\n".join(pieces) + "\n"
            pieces.append(paragraph)
            taken += n
            size += n
    return "\n\n".join(pieces) + "\n"
