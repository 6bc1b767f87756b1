"""What is asked of the machine."""

from __future__ import annotations

from pathlib import Path

from breadcrumbs import machine


def test_the_middle_of_a_large_file_is_read_in_time(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"1" * (4 << 20))
    small.write_bytes(b"1" * (3 << 20))
    speed = machine.read_speed(large, 1 << 20)
    assert speed is None or 1e5 < speed < 1e12  # none: a system that cannot be told
    assert machine.read_speed(small, 1 << 20) is None and machine.read_speed(tmp_path) is None
    assert large.read_bytes() == b"1" * (4 << 20)
    times = [machine.duration(seconds) for seconds in (0.25, 89, 91, 5400, 7200)]
    assert times == ["0.25 s", "89 s", "1.5 min", "1.5 h", "2 h"]
