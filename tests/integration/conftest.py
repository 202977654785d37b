import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from cluster import Cluster  # noqa: E402


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """One cluster, one prefill and one decode node, no local prefill: for tests that leave it as it was."""
    with Cluster(tmp_path_factory.mktemp("shared"), decode_node={"local_prefill": "never"}) as c:
        yield c
        c.wait_idle()


@pytest.fixture
def cluster(shared):
    yield shared
    for name, p in shared.processes.items():
        assert p.alive(), f"{name} died\n{p.log()[-3000:]}"
    shared.wait_idle()


@pytest.fixture
def client(cluster):
    import openai
    return openai.OpenAI(base_url=cluster.url + "/v1", api_key="none", max_retries=0, timeout=300)
