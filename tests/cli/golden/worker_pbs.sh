#!/usr/bin/env bash

#PBS -N vemdiffuse
#PBS -o /scratch/out.zarr.logs/
#PBS -j oe
#PBS -q gpu
#PBS -A em
#PBS -l walltime=12:30:00
#PBS -l select=1:ncpus=32:mem=64500mb:ngpus=4
#PBS -r n
#PBS --one-of-my-own
export VEMDIFFUSE_JOB_ENDS=$(( $(date +%s) + 45000 ))
module load cuda
source ~/em/bin/activate
/env/bin/python -m distributed.cli.dask_worker tcp://192.0.2.1:8786 --name vemdiffuse-0 --nthreads 3 --memory-limit 15.02GiB --nworkers 4 --nanny --death-timeout 60 --local-directory "${TMPDIR:-/tmp}" --resources GPU=1 --memory-limit 0 --dashboard-address 127.0.0.1:0 --interface ib0
