#!/bin/bash
#PBS -N vemdiffuse
#PBS -J 1-64
#PBS -o /scratch/isotropic.zarr.logs/
#PBS -j oe
#PBS -q gpu
#PBS -l walltime=04:00:00
#PBS -l select=1:ncpus=4:mem=16000mb:ngpus=1
#PBS -r y

cd /scratch || exit 1
exec /env/bin/python -m vemdiffuse_pipe run /scratch/pbs.toml --engine threads --part auto/64 --walltime 04:00:00
