"""What all tests share: failures inside the contract suite are shown as in any test module."""

import gc
import itertools
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.redis import servers
from tests.stores_in_turn import left_out

# The suite's modules are imported by test modules and not collected, so pytest has to be told.
pytest.register_assert_rewrite("tests.contract", "tests.shared_caches")

# How long one example takes says nothing on a machine that does other things, too. The same examples each
# time, everywhere: what a machine of its own finds by chance nobody else can repeat. To look for more:
# ``pytest --hypothesis-profile=random``, which has twice as many.
settings.register_profile("latchstore", deadline=None, derandomize=True, database=None, max_examples=50)
settings.register_profile("random", deadline=None, derandomize=False, max_examples=100)
settings.load_profile("latchstore")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: many tests wait for servers and for other processes."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Leave what was collected out of the collector's rounds: some tests call it often."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have cases take their stores in turn, but for those that are asked for by their whole names."""
    if "LATCHSTORE_ALL_STORES" in os.environ or any("[" in argument for argument in config.args):
        return
    out = left_out(items)
    if out:
        config.hook.pytest_deselected(items=[*out])
        items[:] = [item for item in items if item not in out]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that are marked so on each kind of server; the others on one."""
    if "redis_server" in metafunc.fixturenames and metafunc.definition.get_closest_marker("each_server"):
        metafunc.parametrize("redis_server", list(servers.KINDS), indirect=True, scope="session")


@pytest.fixture(scope="session")
def session_servers() -> Iterator[servers.SessionServers]:
    """Stop the servers of this process when all its tests are done."""
    running = servers.SessionServers()
    yield running
    running.close()


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest, session_servers: servers.SessionServers) -> servers.Server:
    """A server that all tests of this process share: a test neither stops it nor changes its settings."""
    return session_servers.of_kind(getattr(request, "param", None) or servers.preferred())


@pytest.fixture(scope="module")
def emptied_server(redis_server: servers.Server) -> Iterator[servers.Server]:
    """The shared server, from which all is removed when the tests of a module are done."""
    yield redis_server
    redis_server.ask("FLUSHALL")


_namespaces = (f"test-{number}" for number in itertools.count())


@pytest.fixture
def namespace(emptied_server: servers.Server) -> str:
    """A name that no other test of this process uses on the server."""
    return next(_namespaces)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT interrupt this process, and those that it starts: a shell starts what is in the background
    with that signal ignored, and children inherit it.
    """
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.fixture(autouse=True, scope="module")
def _working_directory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Run tests that make up paths in a directory of their own, so that none is left in the checkout."""
    if "hostile_arguments" not in request.module.__name__:
        yield
        return
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("made_up_paths"))
    yield
    os.chdir(before)
