#!/bin/bash
# One clmed run on a Slurm cluster: 20 nodes with 8 GPUs, one process a GPU, requeued until it is done.
#
#   sbatch experiments/slurm/run.sh EXPERIMENT.yaml [KEY=VALUE ...] [-o DIRECTORY]
#
# 15 minutes before the time limit Slurm sends SIGUSR1 to every process; clmed saves after the step in progress and
# exits with code 75, and the job is queued again; the same command goes on from the checkpoint (docs/clusters.md).
#
#SBATCH --job-name=clmed
#SBATCH --nodes=20
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=6
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@900
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=clmed-%j.log
set -u

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE

# exec, so that Slurm's signal reaches Python and not a shell. --wait: when one process has ended, for whatever reason,
# the others are given two minutes.
srun --wait=120 bash -c 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID; exec python -m clmed run "$@"' clmed "$@"
code=$?
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
