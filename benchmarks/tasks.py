"""What is made in the cold benchmark: one picture, one size, one format, in everybody's own words."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.corpus import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A picture of the corpus and what shall become of it."""

    name: str
    file: str
    width: int
    height: int | None = None
    """None: follows from the ratio. Else the picture covers width x height and is cropped."""
    format: str = "jpg"
    count: int
    """How often in one round; chosen so that a round takes one to three seconds."""

    def lazypix_path(self, ident: str) -> str:
        """Return the address in lazypix' native grammar."""
        size = f"{self.width}x{self.height},fit=cover" if self.height else f"{self.width}x"
        return f"/image/{size}/{ident}.{self.format}"

    def thumbor_path(self) -> str:
        """Return the address in thumbor's grammar."""
        filters = "" if self.file.endswith(f".{self.format}") else f"filters:format({self.format})/"
        return f"/unsafe/{self.width}x{self.height or 0}/{filters}{self.file}"


def tasks(corpus: Corpus) -> list[Task]:
    """Return the tasks of the cold benchmark."""
    return [
        Task(name="0.5 MP JPEG → 300", file=corpus.jpg_0_5, width=300, count=400),
        Task(name="2 MP JPEG → 300", file=corpus.jpg_2, width=300, count=200),
        Task(name="12 MP JPEG → 300", file=corpus.jpg_12, width=300, count=70),
        Task(name="12 MP JPEG → 1200", file=corpus.jpg_12, width=1200, count=40),
        Task(name="12 MP JPEG → 200×200 cover", file=corpus.jpg_12, width=200, height=200, count=70),
        Task(name="24 MP JPEG → 300", file=corpus.jpg_24, width=300, count=40),
        Task(name="12 MP JPEG → 300 WebP", file=corpus.jpg_12, width=300, format="webp", count=60),
        Task(name="12 MP JPEG → 1200 AVIF", file=corpus.jpg_12, width=1200, format="avif", count=10),
        Task(name="1 MP PNG, alpha → 300", file=corpus.png, width=300, format="png", count=60),
        Task(name="12 frames GIF → 200", file=corpus.gif, width=200, format="gif", count=8),
    ]
