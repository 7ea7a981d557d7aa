"""Which targets of a node the chains of a picture name, from one picture to the next."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fs3.ids import ChainId, ChainVersion, Generation, NodeId, TargetId, target_id
from fs3.log import silent_logger
from fs3.metrics import Metrics
from fs3.routing import ChainInfo, Member, RoutingInfo, TargetState
from fs3.storage.targets import Targets

NODE, OTHER = NodeId(1), NodeId(2)


class Runner:
    """What is told to a target."""

    def __init__(self, target: TargetId) -> None:
        self.target = target
        self.chain: ChainId | None = None
        self.store = SimpleNamespace(space=lambda: SimpleNamespace(capacity_bytes=1, used_bytes=0))
        self.replica = SimpleNamespace(gate=SimpleNamespace(standing=None, is_complete=False))
        self.committer = SimpleNamespace(acknowledge_us=lambda: 0)

    def on_chain(self, info: ChainInfo) -> None:
        self.chain = info.chain


def record(chain: int, version: int, *targets: TargetId) -> ChainInfo:
    members = tuple(Member(target=t, state=TargetState.SERVING, generation=Generation(1)) for t in targets)
    return ChainInfo(chain=ChainId(chain), version=ChainVersion(version), members=members)


def picture(version: int, *chains: ChainInfo) -> RoutingInfo:
    return RoutingInfo(version=version, chains={info.chain: info for info in chains})


def test_each_target_is_found_in_the_chain_that_names_it_now() -> None:
    one, two, strange = target_id(NODE, 0), target_id(NODE, 1), target_id(OTHER, 0)
    membership: Any = SimpleNamespace(set_targets=lambda reports: None)
    store = SimpleNamespace(store_id=1)
    opened: list[Any] = [SimpleNamespace(target=t, store=store) for t in (one, two)]
    make: Any = lambda opened, _: Runner(opened.target)  # noqa: E731
    targets = Targets(opened, make, membership, silent_logger(), Metrics())

    def found(*chains: ChainInfo) -> dict[int, TargetId]:
        targets.on_routing(picture(1, *chains))
        return {chain: runner.target for chain, runner in targets.by_chain.items()}

    first, second, third = record(1, 1, one, strange), record(2, 1, two), record(3, 1, strange)
    assert found(first, second, third) == {1: one, 2: two}
    assert found(first, second, third) == {1: one, 2: two}
    # the second chain loses its target, which the third one gets
    assert found(first, record(2, 2, strange), record(3, 2, two)) == {1: one, 3: two}
    # a chain that names two targets of one node is left out until its record is right
    assert found(record(1, 2, one, two), second) == {2: two}
    assert found(record(1, 3, one), second) == {1: one, 2: two}
    # a chain that is gone from the picture, and is there again
    assert found(second) == {2: two}
    assert found(first, second) == {1: one, 2: two}
