#!/bin/bash
#SBATCH --job-name=vemdiffuse
#SBATCH --array=1-64
#SBATCH --output=/scratch/isotropic.zarr.logs/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --partition=gpu
#SBATCH --time=04:00:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16000M
#SBATCH --gres=gpu:1
#SBATCH --requeue
#SBATCH --signal=B:USR1@120

cd /scratch || exit 1
exec /env/bin/python -m vemdiffuse_pipe run /scratch/slurm.toml --engine threads --part auto --walltime 04:00:00
