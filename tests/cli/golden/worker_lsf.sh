#!/usr/bin/env bash

#BSUB -J vemdiffuse
#BSUB -o /scratch/out.zarr.logs/%J.log
#BSUB -q gpu
#BSUB -P em
#BSUB -W 12:30
#BSUB -n 32
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=64500MB]"
#BSUB -gpu "num=4"
#BSUB -rn
#BSUB --one-of-my-own
export VEMDIFFUSE_JOB_ENDS=$(( $(date +%s) + 45000 ))
module load cuda
source ~/em/bin/activate
/env/bin/python -m distributed.cli.dask_worker tcp://192.0.2.1:8786 --name vemdiffuse-0 --nthreads 3 --memory-limit 15.02GiB --nworkers 4 --nanny --death-timeout 60 --local-directory "${TMPDIR:-/tmp}" --resources GPU=1 --memory-limit 0 --dashboard-address 127.0.0.1:0 --interface ib0
