#!/bin/bash
#$ -N vemdiffuse
#$ -t 1-64
#$ -o /scratch/isotropic.zarr.logs/
#$ -j y
#$ -S /bin/bash
#$ -q gpu.q
#$ -l h_rt=04:00:00
#$ -l s_rt=03:58:00
#$ -l mem_free=4000M
#$ -pe smp 4
#$ -l gpu=1
#$ -r y

cd /scratch || exit 1
exec /env/bin/python -m vemdiffuse_pipe run /scratch/sge.toml --engine threads --part auto --walltime 04:00:00
