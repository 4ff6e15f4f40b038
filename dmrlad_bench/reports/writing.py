"""Entries into a leaderboards folder, and their digests into its register: all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dmrlad_bench.cards import CardError, load_family
from dmrlad_bench.cards.writing import refuse_link, write_atomic
from dmrlad_bench.reports.leaderboard import Entry, content_digest, read_entry
from dmrlad_bench.reports.register import REGISTER, read_register, register_text


def write_entries(entries: Sequence[Entry], folder: Path, replace: bool) -> list[str]:
    """Write entries; returns a line for each: what became of it.

    An entry that is there and differs in its date only is left as it is.

    Raises:
        CardError: there is another entry and `replace` is off, a link is in the way, or the register cannot be read.
    """
    texts: dict[Path, str] = {}
    for entry in entries:
        path = folder / entry.file_name
        texts[path] = _as_before(entry, path).json_text()
    for path in (*texts, folder / REGISTER):
        refuse_link(path.parent)
        refuse_link(path)
    presets = [entry for entry in entries if entry.agent.preset]
    published = [(entry.agent.name, load_family(entry.family.id).name, entry.budget, entry.agent.digest) for entry in presets]
    before = read_register(folder)
    register = register_text(before, published)
    same = {path for path, text in texts.items() if path.is_file() and path.read_bytes() == text.encode()}
    taken = [path for path in texts if path.exists() and path not in same]
    if taken and not replace:
        raise CardError(f"{taken[0]}: there is another entry; pass --replace to put this one in its place")
    folder.mkdir(parents=True, exist_ok=True)
    if published and not ((folder / REGISTER).is_file() and (folder / REGISTER).read_bytes() == register.encode()):
        write_atomic(folder / REGISTER, register.encode())  # first: a digest without an entry is no fault, the other way round is one
    for path, text in texts.items():
        if path not in same:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text.encode())
    return [f"{'unchanged' if path in same else 'replaced' if path in taken else 'new'}: {path}" for path in texts]


def _as_before(entry: Entry, path: Path) -> Entry:
    """The entry with the date of the one that is there, where nothing else would be other."""
    if not path.is_file():
        return entry
    try:
        date = read_entry(path).about.date
    except CardError:
        return entry
    dated = entry.model_copy(update={"about": entry.about.model_copy(update={"date": date})})
    dated = dated.model_copy(update={"content_digest": content_digest(dated)})
    return dated if path.read_bytes() == dated.json_text().encode() else entry
