"""Make `_sync`, the blocking flavour, from `_async`, the source of both.

    python build_hooks/generate_sync.py            write _sync
    python build_hooks/generate_sync.py --check    name every file that differs, exit 1 if one does

unasync swaps single tokens and says nothing about what it does not know. What it would get wrong
is therefore refused: in the source before anything is made, in the result before it is written.
"""

import argparse
import ast
import re
import sys
import tempfile
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple

import unasync

PACKAGE: Final = Path(__file__).resolve().parents[1] / "src" / "step_redis"
RULES: Final[Mapping[str, str]] = {"aio": "threads", "aclose": "close"}

SOURCE_LINE: Final = (
    "# The source of both flavours: build_hooks/generate_sync.py makes _sync/ from it."
)
GENERATED_LINE: Final = (
    "# Generated from _async/{name} by build_hooks/generate_sync.py. Do not edit."
)

BACKEND_MODULES: Final = frozenset(
    {"anyio", "asyncio", "concurrent", "importlib", "queue", "threading", "time", "trio"}
)
REFUSED_NAMES: Final[Mapping[str, str]] = {
    "AsyncGenerator": "its second argument would stay; write AsyncIterator",
    "Awaitable": "unasync leaves it alone; take a type from _backend",
    "Coroutine": "unasync leaves it alone; take a type from _backend",
    "__import__": "import at the top of the file",
    "aclosing": "unasync leaves it alone; write try/finally with `await x.aclose()`",
    "aiter": "unasync leaves it alone; write `async for` or `x.__aiter__()`",
    "anext": "unasync leaves it alone; write `async for` or `await x.__anext__()`",
}
LEFTOVER: Final = re.compile(
    r"\b_?[Aa]sync\b|\b[Aa]wait\b|\b(?:asyncio|aio|aclose|aclosing|aiter|anext)\b"
    r"|\basynccontextmanager\b|__a(?:enter|exit|iter|next|wait)__"
    r"|\w*Async[A-Z]\w*|\w*[Aa]waitable\w*|\w*[Cc]oroutine\w*"
)


class Trap(NamedTuple):
    """A place in a source file that unasync would get wrong."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


class GenerationError(Exception):
    """What kept `_sync` from being made, one problem a line."""

    def __init__(self, problems: Iterable[object]) -> None:
        super().__init__("\n".join(map(str, problems)))


def find_traps(path: Path, rules: Mapping[str, str] = RULES) -> list[Trap]:
    """Find everything in one source file that unasync would get wrong."""
    replacements: dict[str, str] = unasync.Rule("/", "/", rules).token_replacements
    try:
        text = _read(path)
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        return [Trap(path, line or 1, f"does not parse: {error}")]
    found = [
        *_traps_in_tree(tree, text, replacements),
        *_traps_in_tokens(text, replacements),
    ]
    if text.partition("\n")[0] != SOURCE_LINE:
        found.append((1, f"the first line has to be: {SOURCE_LINE}"))
    return [Trap(path, line, message) for line, message in sorted(set(found))]


def render(source: Path, rules: Mapping[str, str] = RULES) -> dict[str, bytes]:
    """Make the generated files of the folder `source`, by name.

    Raises GenerationError, naming every problem, if a source file holds a trap or a result is
    not what it should be.
    """
    source = source.resolve()
    files = sorted(path for path in source.glob("*.py") if path.is_file())
    problems: list[object] = [
        f"rule {key!r}: unasync compares single names, so this never matches"
        for key in rules
        if not key.isidentifier()
    ]
    problems += [
        f"{path}: unasync would skip this; only .py files belong here"
        for path in sorted(source.iterdir())
        if path not in files and path.name != "__pycache__"
    ]
    problems += [trap for path in files for trap in find_traps(path, rules)]
    if not files:
        problems.append(f"{source}: there is no source")
    if problems:
        raise GenerationError(problems)

    with tempfile.TemporaryDirectory() as scratch:
        # Relative paths, or folders that end differently, make unasync overwrite the source.
        rule = unasync.Rule(f"{source}/", f"{scratch}/", rules)
        unasync.unasync_files([str(path) for path in files], [rule])
        for path in files:
            problems += _problems_of_result(path, Path(scratch, path.name))
        texts = [_read(path) for path in files]
        problems += [
            f"rule {key!r}: no file uses it"
            for key in rules
            if not any(re.search(rf"\b{key}\b", text) for text in texts)
        ]
        if problems:
            raise GenerationError(problems)
        return {
            path.name: Path(scratch, path.name)
            .read_bytes()
            .replace(SOURCE_LINE.encode(), GENERATED_LINE.format(name=path.name).encode(), 1)
            for path in files
        }


def generate(source: Path, target: Path, rules: Mapping[str, str] = RULES) -> list[str]:
    """Make the files of the folder `target` from `source` and delete those left over.

    Returns the names of all generated files. Raises GenerationError before anything is written.
    """
    made = render(source, rules)
    target.mkdir(exist_ok=True)
    left_over = _left_over(target, made)
    foreign = [path for path in left_over if path.suffix != ".py" or not path.is_file()]
    if target.resolve() == source.resolve():
        raise GenerationError([f"{target}: source and target are the same folder"])
    if foreign:
        raise GenerationError(f"{path}: not a generated file; remove it" for path in foreign)
    for name, content in made.items():
        path = target / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
    for path in left_over:
        path.unlink()
    return list(made)


def check(source: Path, target: Path, rules: Mapping[str, str] = RULES) -> list[str]:
    """Compare the folder `target` byte for byte with what `source` makes; list what differs."""
    made = render(source, rules)
    problems = [f"{path}: left over" for path in _left_over(target, made)]
    for name, content in made.items():
        path = target / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif path.read_bytes() != content:
            problems.append(f"{path}: changed")
    return sorted(problems)


def _read(path: Path) -> str:
    with tokenize.open(path) as file:
        return file.read()


def _left_over(target: Path, made: Mapping[str, bytes]) -> list[Path]:
    if not target.is_dir():
        return []
    return sorted(path for path in target.iterdir() if path.name not in {*made, "__pycache__"})


def _becomes(name: str, replacements: Mapping[str, str]) -> str:
    """What unasync makes of a name, or of the text of a plain string."""
    if name not in replacements and name.startswith("Async") and name[5:6].isupper():
        return "Sync" + name[5:]
    return replacements.get(name, name)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without entering f-strings, whose parts 3.11 does not place exactly."""
    yield node
    if not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from _nodes(child)


def _traps_in_tree(
    tree: ast.Module, text: str, replacements: Mapping[str, str]
) -> Iterator[tuple[int, str]]:
    for node in _nodes(tree):
        match node:
            case ast.Import(names=names):
                yield from _traps_in_import(names, "", 0)
            case ast.ImportFrom(module=module, names=names, level=level):
                yield from _traps_in_import(names, f"{module or ''}.", level)
            case ast.Await(value=ast.Name() | ast.Attribute() | ast.Subscript()):
                yield node.lineno, "await of a stored value would wait for nothing; await a call"
            case ast.JoinedStr():
                # Python 3.11 sees one token here, 3.12 and later see names.
                for word in re.findall(r"\w+", ast.get_source_segment(text, node) or ""):
                    if word in {"async", "await"} or _becomes(word, replacements) != word:
                        yield node.lineno, f"{word} in an f-string: Pythons differ; move it out"
            case ast.Module(body=body) | ast.ClassDef(body=body):
                yield from _traps_in_scope(body, replacements)


def _traps_in_import(names: list[ast.alias], base: str, level: int) -> Iterator[tuple[int, str]]:
    for alias in names:
        parts = f"{base}{alias.name}".split(".")
        if "asyncio" in parts or (level == 0 and parts[0] in BACKEND_MODULES):
            name = "." * level + ".".join(parts).lstrip(".")
            yield alias.lineno, f"import of {name}: it belongs in _backend, in both flavours"


def _traps_in_scope(
    body: list[ast.stmt], replacements: Mapping[str, str]
) -> Iterator[tuple[int, str]]:
    names: dict[str, str] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            twin = names.setdefault(_becomes(node.name, replacements), node.name)
            if twin != node.name:
                yield node.lineno, f"{node.name} and {twin} would get the same name; rename one"


def _traps_in_tokens(text: str, replacements: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    lines = text.split("\n")
    for token in tokenize.generate_tokens(StringIO(text).readline):
        line, name = token.start[0], token.string
        if token.type == tokenize.STRING:
            content = name[1:-1]
            if _becomes(content, replacements) != content:
                yield line, f"the string {name} would be renamed; word it for both flavours"
        elif token.type != tokenize.NAME:
            continue
        elif name in {"async", "await"}:
            if not re.match(r" [^\s\\#]", lines[line - 1][token.end[1] :]):
                yield line, f"unasync drops what follows {name}; write one space, then the rest"
        elif name in REFUSED_NAMES:
            yield line, f"{name}: {REFUSED_NAMES[name]}"
        elif name not in replacements and _becomes(name, replacements) != name:
            new = _becomes(name, replacements)
            yield line, f"{name} would become {new}; use a name that fits both flavours"


def _problems_of_result(source: Path, result: Path) -> Iterator[str]:
    if not result.is_file():
        yield f"{source}: unasync made nothing of it"
        return
    text = _read(result)
    try:
        compile(text, str(source), "exec", dont_inherit=True)
    except SyntaxError as error:
        yield f"{source}:{error.lineno}: the result does not compile: {error.msg}"
    lines = text.split("\n")
    if len(lines) != len(_read(source).split("\n")):
        yield f"{source}: the result has another number of lines"
    for number, line in enumerate(lines[1:], 2):
        for word in LEFTOVER.findall(line):
            yield f"{source}:{number}: {word} would stay; word it for both flavours"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the result is the exit status."""
    parser = argparse.ArgumentParser(description="Make _sync from _async.")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    only_check: bool = parser.parse_args(arguments).check
    source, target = PACKAGE / "_async", PACKAGE / "_sync"
    try:
        if not only_check:
            generate(source, target)
            return 0
        problems = check(source, target)
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 1
    if problems:
        problems.append("To make them anew: python build_hooks/generate_sync.py")
        print("\n".join(problems), file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
