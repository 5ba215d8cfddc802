"""Datasets as people publish them, and what vitft must make of each: the table behind docs/data-layouts.md.

The letters are the kinds of mistakes that each layout once led to:

A  a level of folders taken for classes         G  links, copies, files that are none
B  a table that does not fit at first sight     H  carving and limits
C  a table beside folders; columns of splits    I  names in all scripts, or in none
D  labels that change their meaning             K  webdataset
E  names taken for keys                         L  formats beside each other
"""

import layouts_folders  # noqa: F401 - they enter their layouts
import layouts_formats  # noqa: F401
import layouts_tables  # noqa: F401
from trees import LAYOUTS, Layout, Reads, Refuses

LAYOUTS.sort(key=lambda each: each.name[0])

__all__ = ["LAYOUTS", "Layout", "Reads", "Refuses"]
