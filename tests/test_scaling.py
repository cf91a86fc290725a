"""The arithmetic of docs/scaling.md is what its own figures give, and those are the benchmarks'."""

from __future__ import annotations

import pytest
from benchmarks.arithmetic import OTHERS, PAGE, evaluate, renewed

SMALL = """
## Measured

| `row_bytes` | {row} | Sizes; `images`; bytes |

## Assumed

| `images` | 1,000 | images |

## Calculated

| `kb` | `images * row_bytes / 1e3` | {kb} | kilobytes |
| `half` | `kb / (1 + 1) - 0` | {half} | half of that |

## Sizes

### Sizes

| table | rows | bytes |
| --- | ---: | ---: |
| `images` | 5 | 681 |

"""


def test_the_page_says_what_its_figures_give() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page, "".join(other.read_text(encoding="utf-8") for other in OTHERS)) == page


def test_figures_are_taken_from_tables_and_the_rest_is_calculated() -> None:
    assert renewed(SMALL.format(row=0, kb=0, half=0)) == SMALL.format(row=681, kb=681, half=340)


@pytest.mark.parametrize(
    ("was", "becomes"), [("Sizes;", "Size;"), ("; bytes", "; octets"), ("; `images`", "; `image`"), ("1e3", "one")]
)
def test_what_is_not_there_is_an_error(was: str, becomes: str) -> None:
    with pytest.raises(LookupError):
        renewed(SMALL.format(row=0, kb=0, half=0).replace(was, becomes, 1))


@pytest.mark.parametrize("formula", ["images ** 2", "print(1)", "'a'", "-images", "images if images else 1"])
def test_formulas_are_plain(formula: str) -> None:
    with pytest.raises(LookupError):
        evaluate(formula, {"images": 1.0})
