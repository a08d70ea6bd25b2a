#!/usr/bin/env bash

#SBATCH --job-name=vemdiffuse
#SBATCH --output=/scratch/out.zarr.logs/%j.log
#SBATCH --open-mode=append
#SBATCH --partition=gpu
#SBATCH --account=em
#SBATCH --time=12:30:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --mem=64500M
#SBATCH --gres=gpu:4
#SBATCH --no-requeue
#SBATCH --one-of-my-own
export VEMDIFFUSE_JOB_ENDS=$(( $(date +%s) + 45000 ))
module load cuda
source ~/em/bin/activate
/env/bin/python -m distributed.cli.dask_worker tcp://192.0.2.1:8786 --name vemdiffuse-0 --nthreads 3 --memory-limit 15.02GiB --nworkers 4 --nanny --death-timeout 60 --local-directory "${TMPDIR:-/tmp}" --resources GPU=1 --memory-limit 0 --dashboard-address 127.0.0.1:0 --interface ib0
