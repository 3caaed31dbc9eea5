"""Progress of long work, where stderr is no terminal: a line now and then, and one at the end."""

from eval import progress


def test_lines_in_a_log(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0)
    with progress.Progress(3, "frames", "packing") as bar:
        bar.update(2)
        bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert [line.rsplit(",", 1)[0] for line in lines] == ["packing: 2 of 3 frames", "packing: 3 of 3 frames"]


def test_a_high_rate_is_written_out(capsys, monkeypatch):
    times = iter([0.0, 0.5])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times, 0.5))
    with progress.Progress(9000, "frames", "packing") as bar:
        bar.done = 9000
    assert capsys.readouterr().err == "packing: 9000 of 9000 frames, 18000 a second\n"
