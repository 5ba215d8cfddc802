import pytest
from pictures.subjects import photos, subject

from vitft.pictures.look import KINDS, look


@pytest.fixture(scope="session")
def seen():
    found = look(subject(), list(KINDS), photos(5), show=2, pool=photos(7, "q"))
    found.images = "of nowhere"
    return found
