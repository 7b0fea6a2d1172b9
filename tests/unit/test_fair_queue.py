"""Fair queue: a busy host does not delay requests of the others."""

import threading

from compute_api.rpc.fair_queue import FairQueue


def test_hosts_take_turns_and_each_is_served_in_order() -> None:
    turns: FairQueue[int] = FairQueue(each=10, whole=100)
    for number in range(3):
        assert turns.add("busy", number)
    assert turns.add("one", 7)
    assert turns.add("two", 8)
    taken = [turns.take() for _ in range(5)]
    assert taken == [("busy", 0), ("one", 7), ("two", 8), ("busy", 1), ("busy", 2)]
    assert turns.add("one", 9)
    assert turns.take() == ("one", 9)


def test_a_host_has_no_more_than_its_share() -> None:
    turns: FairQueue[int] = FairQueue(each=2, whole=100)
    assert [turns.add("busy", number) for number in range(4)] == [True, True, False, False]
    assert turns.add("other", 0)
    turns.take()
    assert turns.add("busy", 4)


def test_add_blocks_while_the_queue_is_full() -> None:
    turns: FairQueue[int] = FairQueue(each=2, whole=2)
    turns.add("one", 1)
    turns.add("two", 2)
    adds = threading.Thread(target=turns.add, args=("three", 3))
    adds.start()
    assert turns.take() == ("one", 1)
    adds.join()
    assert [turns.take(), turns.take()] == [("two", 2), ("three", 3)]
