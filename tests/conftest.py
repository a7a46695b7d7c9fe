import pytest
from hypothesis import settings
from namespace import fresh_namespace

# No test is timed: the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def netns():
    with fresh_namespace() as name:
        yield name
