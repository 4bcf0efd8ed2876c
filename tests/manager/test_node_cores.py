"""One reading of the places that the manager tells, for futures and for records."""

import pytest

from qcg.pilotjob.executor_api._shared.job_info import by_node


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", {}),
        ("n1[0]", {"n1": ["0"]}),
        ("n1[0:3],n2[1]", {"n1": ["0", "3"], "n2": ["1"]}),
        ("n1[],n2[GPU-1:MIG-a/1/0]", {"n1": [], "n2": ["GPU-1", "MIG-a/1/0"]}),
    ],
)
def test_nodes_with_their_cores_or_gpus(text, places):
    assert by_node(text) == places
