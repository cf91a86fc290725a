"""Libraries for tests of copies: one that is filled, and two that are held against each other."""

from __future__ import annotations

from tests.engine import pictures as p

from lazypix import Library

JPG = p.jpg(p.quadrants())
PNG = p.encoded(p.quadrants())


def fill(library: Library) -> None:
    """Put in what a library has after some time."""
    library.add(JPG, ident="cat", filename="my cät 猫.JPG", metadata={"who": "me", "deep": {"ä": [1, None, 0.5]}})
    library.add(PNG, ident="dog", filename="..\\..\\a\0b.png", metadata={"nul": "a\0b", "": "", "yes": True})
    library.variant("cat", "60x")
    library.variant("cat", "200x100,fit=cover", format="webp")
    library.variant("dog", "full", format="avif")
    for number in range(5):
        library.add(p.encoded(p.quadrants(20 + number, 10)), ident=f"i{number}")
    library.delete("i0", for_good=True)
    library.delete("i1")
    library.catalog.health.strike("i2")


def check_same(source: Library, target: Library, *, variants: bool = True) -> None:
    """Hold every row and every blob of two libraries against each other."""
    deleted = ("deleting", "deleted", "gone")
    entries = {image.ident: (image, state) for image, state in source.catalog.walk_all()}
    found = {image.ident: (image, state) for image, state in target.catalog.walk_all()}
    assert found.keys() == entries.keys()
    assert target.catalog.unfinished() == []
    for ident, (image, state) in entries.items():
        there, its_state = found[ident]
        if state in deleted:
            assert its_state in deleted
            continue
        assert (there, its_state) == (image, state)
        assert target.store.get(target.originals.key(there)) == source.store.get(source.originals.key(image))
        if variants and state == "ready":
            assert target.catalog.variants.of(ident) == source.catalog.variants.of(ident)
            for variant in source.catalog.variants.of(ident):
                body = source.store.get(source.keys.folder(ident) + variant.name)
                assert target.store.get(target.keys.folder(ident) + variant.name) == body
    alive = [(image, state) for image, state in entries.values() if state not in deleted]
    stored = sum(len(source.catalog.variants.of(image.ident)) for image, state in alive if state == "ready")
    assert len(list(target.store.list())) == len(alive) + (stored if variants else 0)
