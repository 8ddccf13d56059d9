"""A training that goes to another folder on the way loses nothing of its run."""

import torch
from torch import nn

from trimtab import Guard, Run


def test_a_run_stays_where_it_began(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIMTAB_RUNS", raising=False)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Guard(None, model, optimizer) as guard:
        for step in range(12):
            if step in (0, 5):  # before anything is written, and in the middle
                monkeypatch.chdir("elsewhere" if step == 0 else "..")
            model(torch.ones(4, 2)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run(folder)
    assert (run.status, {row.step for row in run.rows()}) == ("finished", set(range(12)))
    assert guard.run_path == folder
    assert list((tmp_path / "elsewhere").iterdir()) == []
