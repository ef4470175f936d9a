"""The ports that tests start servers on."""

import subprocess
import sys

from tests.support.ports import BLOCK, BLOCKS, free_port, free_ports


def test_ports_are_not_given_twice_in_a_row_even_while_nobody_listens_there() -> None:
    first, second = free_ports(5), free_port()
    assert second not in range(first, first + 5)


def test_another_process_that_runs_tests_gets_ports_of_another_block() -> None:
    own = (free_port() - BLOCKS.start) // BLOCK
    program = "from tests.support.ports import free_port; print(free_port())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert int(other.stdout) in range(BLOCKS.start, BLOCKS.stop)
    assert (int(other.stdout) - BLOCKS.start) // BLOCK != own


def test_all_ports_of_a_block_are_given_before_one_is_again() -> None:
    given = [free_port() for _ in range(100)]
    assert len(set(given)) == 100
