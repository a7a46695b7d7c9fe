import pytest
from namespace import fresh_namespace


@pytest.fixture
def netns():
    with fresh_namespace() as name:
        yield name
