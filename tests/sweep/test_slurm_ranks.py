"""A run of two ranks as one job of Slurm's, which stand-ins take for it: submitted, warned, queued again, ended."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from clmed.config import dump, load
from clmed.results.rundir import RunDirectory
from clmed.sweep.slurm import SlurmJobs
from tests.command import write_tiny

pytest.importorskip("submitit")

# A job is its script, again and again as long as it is queued again.
SBATCH = """#!{python}
import os, re, subprocess, sys
tasks = re.search(r"--ntasks-per-node=(\\d+)", open(sys.argv[1]).read())[1]
job = {{"SLURM_JOB_ID": "7", "SLURM_NTASKS": tasks, "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "localhost"}}
loop = 'while rm -f requeue; bash "$1"; [ -e requeue ]; do :; done'
subprocess.Popen(["bash", "-c", loop, "job", sys.argv[1]], env=os.environ | job, start_new_session=True,
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""
SRUN = """#!{python}
import os, subprocess, sys
name = lambda flag, rank: sys.argv[sys.argv.index(flag) + 1].replace("%j", "7").replace("%t", str(rank))
command = sys.argv[sys.argv.index("{python}"):]
tasks = []
for rank in range(int(os.environ["SLURM_NTASKS"])):
    number = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}}
    out, err = (open(name(flag, rank), "ab") for flag in ("--output", "--error"))
    tasks.append(subprocess.Popen(command, env=os.environ | number, stdout=out, stderr=err))
open("tasks", "w").write(" ".join(str(task.pid) for task in tasks))
[task.wait() for task in tasks]
"""
SCONTROL = '#!/bin/bash\n[ "$1" = requeue ] && touch requeue && echo "$@" >> scontrol.log\n'
SACCT = '#!/bin/bash\necho "JobID|State|NodeList"; echo "7|RUNNING|localhost"\n'


@pytest.mark.full
def test_the_ranks_of_a_job_save_together_and_go_on_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    for name, content in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "sacct": SACCT}.items():
        file = tmp_path / "bin" / name
        file.write_text(content.format(python=sys.executable) if "{python}" in content else content)
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    experiment, run = tmp_path / "run.yaml", RunDirectory(tmp_path / "run")
    overrides = ["stream.0.tokens=60k", "training.save_every=100000", "training.share_experiences=false"]
    experiment.write_text(dump(load(write_tiny(tmp_path), overrides)))
    job = SlurmJobs(tmp_path, 1, ["timeout_min=60", "tasks_per_node=2"]).start(experiment, run.path, tmp_path / "log")
    log = tmp_path / "log"

    until = time.monotonic() + 240
    while not (run.path / "train.jsonl").exists() or len(run.training()) < 4:
        assert time.monotonic() < until and job.poll() is None, log.read_text()
        time.sleep(0.2)
    assert run.environment()["ranks"] == 2
    before = len(run.training())
    for task in (tmp_path / "tasks").read_text().split():  # by cgroups every process is warned, ranks before tasks
        children = Path(f"/proc/{task}/task/{task}/children").read_text().split()
        for process in (*children, task):
            os.kill(int(process), signal.SIGUSR2)
    left: list[Path] = []  # a rank's result from before would be taken for that of now
    while (code := job.poll()) is None:
        assert time.monotonic() < until, log.read_text()
        if "going on from" in log.read_text() and len(run.training()) < before + 4:
            left += tmp_path.glob("jobs/*/*result.pkl")
        time.sleep(0.1)
    assert not left
    text = log.read_text()
    assert code == 0, text
    assert text.count("going on from") == 1 and (tmp_path / "scontrol.log").read_text() == "requeue 7\n"
    assert run.status()["state"] == "complete" and len(run.training()) > before
    assert run.environment()["ranks"] == 2
