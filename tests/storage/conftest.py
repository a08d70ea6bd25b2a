"""Each format is written once in a session and opened by many tests."""

import pytest
from stored_volumes import FORMATS


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The path of the volume as `stored` writes it, written at the first call."""
    folder = tmp_path_factory.mktemp("volumes")

    def path_of(stored):
        path = folder / stored.name
        if not path.exists():
            stored.write(path)
        return path

    return path_of


@pytest.fixture(params=FORMATS, ids=str, scope="session")
def stored(request):
    """Every format in turn."""
    return request.param
