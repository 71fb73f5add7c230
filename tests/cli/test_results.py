from __future__ import annotations

from ernie2.cli.results import show_figures


def test_evaluate_says_of_each_task_what_its_baselines_reach_and_whether_it_is_learned(capsys):
    figures = {
        "instances": 128,
        "scored": 128,
        "loss": 0.693,
        "accuracy": 0.547,
        "low": 0.460,
        "high": 0.633,
        "majority": {"accuracy": 0.453},
        "constant": {"accuracy": 0.547},
        "cheap": {"accuracy": 0.453, "rule": "share of pieces in common"},
    }
    show_figures({"same_author": figures})
    assert capsys.readouterr().out.splitlines() == [
        "same_author: accuracy 0.547 (0.460 to 0.633), loss 0.693 (128 instances, 128 scored)",
        "  baselines: majority class of training 0.453, best constant answer 0.547, feature baseline 0.453 "
        "(share of pieces in common)",
        "  not learned: the interval is not above the best baseline (best constant answer, 0.547)",
    ]
