#!/bin/bash
#BSUB -J "vemdiffuse[1-64]"
#BSUB -o /scratch/isotropic.zarr.logs/%J_%I.log
#BSUB -q gpu
#BSUB -W 04:00
#BSUB -n 4
#BSUB -R "span[hosts=1]"
#BSUB -R "rusage[mem=16000MB]"
#BSUB -gpu "num=1"
#BSUB -r
#BSUB -wa USR1
#BSUB -wt 2

cd /scratch || exit 1
exec /env/bin/python -m vemdiffuse_pipe run /scratch/lsf.toml --engine threads --part auto --walltime 04:00:00
