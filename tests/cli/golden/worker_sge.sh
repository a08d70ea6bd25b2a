#!/usr/bin/env bash

#$ -N vemdiffuse
#$ -o /scratch/out.zarr.logs/
#$ -j y
#$ -S /bin/bash
#$ -q gpu
#$ -P em
#$ -l h_rt=12:30:00
#$ -l mem_free=2016M
#$ -pe smp 32
#$ -l gpu=4
#$ -r n
#$ --one-of-my-own
export VEMDIFFUSE_JOB_ENDS=$(( $(date +%s) + 45000 ))
module load cuda
source ~/em/bin/activate
/env/bin/python -m distributed.cli.dask_worker tcp://192.0.2.1:8786 --name vemdiffuse-0 --nthreads 3 --memory-limit 15.02GiB --nworkers 4 --nanny --death-timeout 60 --local-directory "${TMPDIR:-/tmp}" --resources GPU=1 --memory-limit 0 --dashboard-address 127.0.0.1:0 --interface ib0
