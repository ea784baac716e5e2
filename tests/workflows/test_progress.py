"""Progress for logs: few lines, and always a last one."""

from geohsal.workflows.progress import Lines


def test_lines_speak_at_the_start_every_ten_seconds_and_at_the_end() -> None:
    now = 0.0
    said: list[str] = []
    lines = Lines(said.append, clock=lambda: now)
    lines.start("tiles", 100)
    for _ in range(100):
        now += 0.5
        lines.advance()
    lines.done()
    lines.done()  # twice is once
    assert said == [
        "tiles: 100 to do",
        "tiles: 20 %, 10 s",
        "tiles: 40 %, 20 s",
        "tiles: 60 %, 30 s",
        "tiles: 80 %, 40 s",
        "tiles: 100 %, 50 s",
        "tiles: 100 of 100 done, 50 s",
    ]


def test_lines_wait_for_a_tenth_of_slow_work() -> None:
    now = 0.0
    said: list[str] = []
    lines = Lines(said.append, clock=lambda: now)
    lines.start("steps", 40)
    for _ in range(4):
        now += 60.0
        lines.advance()
    assert said == ["steps: 40 to do", "steps: 10 %, 240 s"]
