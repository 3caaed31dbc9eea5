"""parse_log: the two tables of a log."""

import csv

from caffe.tools import parse_log

LOG = """I1231 23:59:58.000000  1 solver.cpp:289] Solving toy
I1231 23:59:58.500000  1 solver.cpp:347] Iteration 0, Testing net (#0)
I1231 23:59:58.600000  1 solver.cpp:414]     Test net output #0: accuracy = 0.25
I1231 23:59:58.600000  1 solver.cpp:347] Iteration 0, Testing net (#1)
I1231 23:59:58.600000  1 solver.cpp:414]     Test net output #0: accuracy = 0.125
I1231 23:59:59.000000  1 solver.cpp:239] Iteration 0 (0 iter/s, 0s/10 iters), loss = 2.5
I1231 23:59:59.000000  1 solver.cpp:258]     Train net output #0: loss = 2.25 (* 1 = 2.25 loss)
I1231 23:59:59.000000  1 sgd_solver.cpp:112] Iteration 0, lr = 0.1
I0101 00:00:01.250000  1 solver.cpp:239] Iteration 10 (4.4 iter/s, 2.25s/10 iters), loss = nan
I0101 00:00:01.250000  1 solver.cpp:258]     Train net output #0: loss = 1e-05 (* 1 = 1e-05 loss)
I0101 00:00:01.250000  1 sgd_solver.cpp:112] Iteration 10, lr = 0.01
"""


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def test_tables(tmp_path, capsys):
    (tmp_path / "toy.log").write_text(LOG)
    assert parse_log.main([str(tmp_path / "toy.log"), str(tmp_path), "--verbose"]) == 0
    assert rows(tmp_path / "toy.log.train") == [
        {"NumIters": "0", "Seconds": "1.0", "LearningRate": "0.1", "loss": "2.25"},
        {"NumIters": "10", "Seconds": "3.25", "LearningRate": "0.01", "loss": "1e-05"},
    ]
    assert rows(tmp_path / "toy.log.test") == [
        {"NumIters": "0", "Seconds": "0.6", "LearningRate": "", "accuracy": "0.25", "accuracy #1": "0.125"}
    ]
    assert "toy.log.train: 2 rows" in capsys.readouterr().out


def test_what_is_no_log(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("hello\n")
    assert parse_log.main([str(tmp_path / "a.txt"), str(tmp_path)]) == 1
    assert "wanted the log of a Caffe training" in capsys.readouterr().err
    assert parse_log.main([str(tmp_path / "gone.log"), str(tmp_path)]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt"]
