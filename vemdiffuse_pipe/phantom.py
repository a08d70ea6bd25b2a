"""A phantom of nervous tissue: what the whole house can be shown on when no volume is at hand.

Isotropic, deterministic, and like FIB-SEM of a fly's neuropil in grey levels, texture and noise. In the
order in which it is built, all lengths in nanometres, so another voxel size shows the same kind of tissue:

    neurites        chains of overlapping balls along random walks; each voxel belongs to the nearest ball
                    by power distance, |x - c|^2 - radius^2
    membranes       dark sheets where two neurites are equally near
    mitochondria    dark capsules along the chains of thick neurites: outer membrane, cristae
    reticulum       tubes where two smooth random fields are both near zero
    vesicles        clusters of dark rings of 40 nm
    acquisition     blur, white noise, noise that is correlated along x

All but the last live in warped space, so that nothing is straight. The random numbers are raw bits of the
counter-based generator Philox, one stream a purpose, turned into numbers here by integer arithmetic: they
do not depend on the version of numpy.

Amounts and grey levels were chosen so that mean, deviation, correlation of neighbours and spectrum along
each axis are near those of FIB-25 at 10 nm (mean 130, deviation 27, correlation 0.95 to 0.96).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from vemdiffuse_pipe.errors import ConfigError
from vemdiffuse_pipe.geometry.box import Zyx
from vemdiffuse_pipe.volume import Voxels

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int32]

MARGIN_NM = 500.0
NEURITES_PER_UM3 = 14.0
WALK_NM = 2500.0
BLOCK = 4
N_CANDIDATES = 16
FAR_NM = 1000.0
CLUSTERS_PER_UM3 = 26.0
VESICLES_PER_CLUSTER = 80
BODY_PERIOD = 7


def phantom(shape: Zyx, seed: int, *, voxel_size_nm: float = 10.0) -> Voxels:
    """An isotropic EM-like volume: `shape` zyx, uint8; the same for the same arguments.

    `seed`: 0 .. 2**64 - 1. `voxel_size_nm`: edge of a voxel. Raises ConfigError for an empty shape, a voxel
    size that is not between 2 and 40 nm, or another seed.
    """
    _check(shape, seed, voxel_size_nm)
    noise = _Noise(seed)
    place = _warped_places(noise, shape, voxel_size_nm)
    neurites = _grow_neurites(noise, shape, voxel_size_nm)
    tissue = _partition(neurites, place)
    grey = _cytoplasm(noise, neurites, tissue, voxel_size_nm)
    _add_reticulum(grey, noise, tissue, voxel_size_nm)
    _add_vesicles(grey, noise, tissue, voxel_size_nm)
    _add_mitochondria(grey, noise, neurites, tissue, place)
    _add_membranes(grey, noise, tissue, voxel_size_nm)
    return _acquire(grey, noise, voxel_size_nm)


@dataclass(frozen=True, slots=True)
class _Noise:
    """Random numbers that are a function of the seed and of the stream that is asked for."""

    seed: int

    def _raw(self, stream: int, shape: tuple[int, ...]) -> NDArray[np.uint64]:
        key = np.array([self.seed, stream], np.uint64)
        bits: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(prod(shape)).reshape(shape)
        return bits

    def uniform(self, stream: int, *shape: int) -> Doubles:
        """Numbers in [0, 1) with 53 bits."""
        return (self._raw(stream, shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, stream: int, *shape: int) -> Floats:
        """Mean 0, deviation 1, within +-5: the sum of eight random bytes (Irwin-Hall), standardised."""
        octets = self._raw(stream, shape).astype("<u8").view(np.uint8).reshape(*shape, 8)
        total = octets.sum(axis=-1, dtype=np.int16)
        standard: Floats = (total.astype(np.float32) - 1020) / np.float32(np.sqrt(8 * (256**2 - 1) / 12))
        return standard

    def smooth(self, stream: int, shape: Zyx, spacing: float) -> Floats:
        """A random field that varies over `spacing` voxels: deviation 1 where it is sampled finely.

        Cubic B-splines with random coefficients, one every `spacing` voxels.
        """
        coarse = [int(n / spacing) + 4 for n in shape]
        field = self.normal(stream, *coarse)
        for axis, n in enumerate(shape):
            field = _refined(field, axis, n, spacing)
        return field * np.float32((315 / 151) ** 1.5)


def _refined(coefficients: Floats, axis: int, n: int, spacing: float) -> Floats:
    """`n` samples along `axis` of the cubic B-spline with one coefficient every `spacing` samples."""
    whole, t = np.divmod(np.arange(n) / spacing, 1)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    along = [1, 1, 1]
    along[axis] = n
    out = np.zeros((*coefficients.shape[:axis], n, *coefficients.shape[axis + 1 :]), np.float32)
    for offset, weight in enumerate(weights):
        taken = coefficients.take(whole.astype(int) + offset, axis)
        out += taken * (weight / 6).astype(np.float32).reshape(along)
    return out


def _warped_places(noise: _Noise, shape: Zyx, voxel_size_nm: float) -> Floats:
    """Where each voxel lies in tissue, in nm: (zyx, z, y, x)."""
    place = np.empty((3, *shape), np.float32)
    for axis in range(3):
        along = [1, 1, 1]
        along[axis] = shape[axis]
        place[axis] = (np.arange(shape[axis], dtype=np.float32) * np.float32(voxel_size_nm)).reshape(along)
        place[axis] += 55 * noise.smooth(10 + axis, shape, 260 / voxel_size_nm)
        place[axis] += 13 * noise.smooth(20 + axis, shape, 90 / voxel_size_nm)
    return place


@dataclass(frozen=True, slots=True)
class _Neurites:
    """Balls in nm: `centres` (ball, zyx), `radii` (ball,), and the neurite that each belongs to, (ball,).

    The balls of a neurite are neighbours in the arrays, in the order of its walk.
    """

    centres: Doubles
    radii: Doubles
    owners: NDArray[np.int64]


def _grow_neurites(noise: _Noise, shape: Zyx, voxel_size_nm: float) -> _Neurites:
    size = np.array(shape) * voxel_size_nm + 2 * MARGIN_NM
    n = max(4, int(size.prod() * 1e-9 * NEURITES_PER_UM3))
    starts = noise.uniform(1, n, 3) * size - MARGIN_NM
    chance = noise.uniform(2, n)
    radii = np.where(chance < 0.8, 45 + 80 * chance, 200 + 1000 * (chance - 0.8))
    walks = [
        _walk(noise, 1000 + i, start, radius)
        for i, (start, radius) in enumerate(zip(starts, radii, strict=True))
    ]
    owners = np.repeat(np.arange(n), [len(w) for w in walks])
    centres = np.concatenate(walks)
    swelling = 0.75 + 0.5 * noise.uniform(3, len(centres))
    return _Neurites(centres, radii[owners] * swelling, owners)


def _walk(noise: _Noise, stream: int, start: Doubles, radius: float) -> Doubles:
    """Centres along a walk that keeps its direction for a while: (ball, zyx) nm."""
    step = 0.7 * radius
    kicks = noise.normal(stream, max(3, int(WALK_NM / step)), 3).astype(np.float64)
    stiffness = np.exp(-step / 600)
    kicks[0] *= 3
    heading = np.empty_like(kicks)
    heading[0] = kicks[0]
    for i in range(1, len(kicks)):
        heading[i] = stiffness * heading[i - 1] + np.sqrt(1 - stiffness**2) * kicks[i]
    heading /= np.maximum(np.linalg.norm(heading, axis=1, keepdims=True), 1e-9)
    return start + np.cumsum(step * heading, axis=0)


@dataclass(frozen=True, slots=True)
class _Tissue:
    """For each voxel the nearest ball, its neurite, and the distance in nm to the next neurite's bisector."""

    ball: Indices
    owner: Indices
    depth: Floats


def _partition(neurites: _Neurites, place: Floats) -> _Tissue:
    """Power diagram of the balls, exact among the nearest `N_CANDIDATES` of each block of 4 x 4 x 4 voxels.

    |x - c|^2 - radius^2 is a squared distance in four dimensions, up to a constant: a k-d tree finds it.
    """
    lift = np.sqrt(neurites.radii.max() ** 2 - neurites.radii**2)
    tree = cKDTree(np.column_stack([neurites.centres, lift]))
    shape = place.shape[1:]
    ball, depth = np.empty(shape, np.int32), np.empty(shape, np.float32)
    for z in range(0, shape[0], BLOCK):
        slab = slice(z, z + BLOCK)
        ball[slab], depth[slab] = _partition_slab(neurites, tree, place[:, slab])
    return _Tissue(ball, neurites.owners.astype(np.int32)[ball], depth)


def _partition_slab(neurites: _Neurites, tree: cKDTree, place: Floats) -> tuple[Indices, Floats]:
    """The nearest ball of each voxel, and the distance to its bisector with the nearest foreign one."""
    candidates = _candidates(tree, place)
    centres, owners = neurites.centres.astype(np.float32), neurites.owners
    powers = np.square(neurites.radii).astype(np.float32)
    first, second = np.full((2, *place.shape[1:]), np.inf, np.float32)
    ball, rival = np.zeros((2, *place.shape[1:]), np.int32)
    owner = np.full(ball.shape, -1, np.int32)
    for i in range(N_CANDIDATES):
        index = candidates[..., i]
        power = sum(np.square(place[a] - centres[index, a]) for a in range(3)) - powers[index]
        nearer, other = power < first, owner != owners[index]
        loser = np.where(nearer, first, power)
        second_changes = other & (loser < second)
        rival = np.where(second_changes, np.where(nearer, ball, index), rival)
        second = np.where(second_changes, loser, second)
        ball, owner = np.where(nearer, index, ball), np.where(nearer, owners[index], owner)
        first = np.minimum(first, power)
    apart = np.linalg.norm(neurites.centres[ball] - neurites.centres[rival], axis=-1)
    depth = np.where(np.isfinite(second), (second - first) / (2 * apart + 1e-3), FAR_NM)
    return ball, depth


def _candidates(tree: cKDTree, place: Floats) -> Indices:
    """Balls near each column of 4 x 4 voxels of a slab: (y, x, candidate), nearest to its middle first."""
    _, nz, ny, nx = place.shape
    rows, columns = (np.minimum(np.arange(0, n, BLOCK) + BLOCK // 2, n - 1) for n in (ny, nx))
    middles = np.moveaxis(place[:, nz // 2][:, rows[:, None], columns], 0, -1)
    lifted = np.concatenate([middles, np.zeros_like(middles[..., :1])], axis=-1)
    _, nearest = tree.query(lifted, N_CANDIDATES)
    spread: Indices = nearest.astype(np.int32).repeat(BLOCK, 0)[:ny].repeat(BLOCK, 1)[:, :nx]
    return spread


def _cytoplasm(noise: _Noise, neurites: _Neurites, tissue: _Tissue, voxel_size_nm: float) -> Floats:
    """Each neurite has its own tone; granules of two sizes."""
    shape = tissue.depth.shape
    n = int(neurites.owners[-1]) + 1
    tones = (118 + 70 * noise.uniform(4, n)).astype(np.float32)
    grey = tones[tissue.owner]
    grey += 8 * noise.smooth(30, shape, 90 / voxel_size_nm)
    grey += 10 * noise.smooth(31, shape, 32 / voxel_size_nm)
    return grey


def _add_reticulum(grey: Floats, noise: _Noise, tissue: _Tissue, voxel_size_nm: float) -> None:
    """Tubes along the curves where two smooth fields vanish: pale inside, dark wall."""
    spacing = 200.0
    fields = [noise.smooth(40 + i, grey.shape, spacing / voxel_size_nm) for i in range(2)]
    from_axis = np.hypot(*fields) * np.float32(0.6 * spacing)
    wall = _bell(from_axis, 26, 11) * _inside(tissue.depth, 35)
    grey -= 55 * wall
    grey += 15 * _bell(from_axis, 0, 14) * _inside(tissue.depth, 35)


def _add_vesicles(grey: Floats, noise: _Noise, tissue: _Tissue, voxel_size_nm: float) -> None:
    """Dark rings of 40 nm, in clusters, clear of the membranes; a cluster stays in one neurite."""
    size = np.array(grey.shape)
    n = int(grey.size * (voxel_size_nm * 1e-3) ** 3 * CLUSTERS_PER_UM3) + 1
    heads = noise.uniform(50, n, 1, 3) * size
    centres = heads + noise.normal(51, n, VESICLES_PER_CLUSTER, 3) * (120 / voxel_size_nm)
    home = tissue.owner[tuple(np.moveaxis(heads.astype(int), -1, 0))]
    voxels = tuple(np.moveaxis(np.clip(centres, 0, size - 1).astype(int), -1, 0))
    kept = (tissue.owner[voxels] == home) & (tissue.depth[voxels] > 38)
    reach = int(np.ceil(32 / voxel_size_nm))
    steps = np.stack(np.meshgrid(*3 * [np.arange(-reach, reach + 1)], indexing="ij"), -1).reshape(1, -1, 3)
    spots = centres[kept].astype(int)[:, None] + steps
    from_centre = np.linalg.norm(spots + 0.5 - centres[kept][:, None], axis=-1) * voxel_size_nm
    within = ((spots >= 0) & (spots < size)).all(axis=-1)
    wall = np.zeros_like(grey)
    np.maximum.at(wall, tuple(spots[within].T), _bell(from_centre[within].astype(np.float32), 16, 9))
    grey += 0.8 * wall * (78 - grey)


def _add_mitochondria(
    grey: Floats, noise: _Noise, neurites: _Neurites, tissue: _Tissue, place: Floats
) -> None:
    """Dark capsules along thick neurites, with an outer membrane and warped parallel cristae."""
    bodies = _mitochondrial_balls(noise, neurites)
    near = np.flatnonzero(ndimage.maximum_filter1d(bodies, 5)[tissue.ball.ravel()] >= 0)
    points = place.reshape(3, -1)[:, near].T
    inward, body = _depth_in_bodies(points, tissue.ball.ravel()[near], bodies, neurites)
    inward = np.minimum(inward, tissue.depth.ravel()[near] - 28)
    normals = noise.normal(61, len(bodies), 3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    phase = np.einsum("ij,ij->i", points, normals[body]) * np.float32(2 * np.pi / 52)
    matrix = 92 - 14 * _bell(inward, 6, 9) + 13 * np.sin(phase) * _inside(inward, 22)
    share = _inside(inward, 0)
    flat = grey.reshape(-1)
    flat[near] += share * (matrix - flat[near])


def _mitochondrial_balls(noise: _Noise, neurites: _Neurites) -> NDArray[np.int64]:
    """The mitochondrion that each ball belongs to, named by its first ball; -1 for none: (ball,)."""
    n = len(neurites.owners)
    every = np.arange(n)
    position = every - np.searchsorted(neurites.owners, neurites.owners)
    first = every - position % BODY_PERIOD
    length = (BODY_PERIOD * noise.uniform(60, n)[first]).astype(int)
    thick = neurites.radii[first] > 150
    return np.where(thick & (length > 1) & (every - first < length), first, -1)


def _depth_in_bodies(
    points: Floats, ball: Indices, bodies: NDArray[np.int64], neurites: _Neurites
) -> tuple[Floats, NDArray[np.int64]]:
    """Depth of points below the surface of their mitochondrion, nm, negative outside; and which it is.

    A body is the set of points nearer to the segments between its balls than its radius. Looked for among
    the four segments around the nearest ball.
    """
    depth = np.full(len(points), -FAR_NM, np.float32)
    body = np.zeros(len(points), np.int64)
    centres = neurites.centres.astype(np.float32)
    for offset in range(-2, 2):
        i = np.clip(ball + offset, 0, len(bodies) - 2)
        start, along = centres[i], centres[i + 1] - centres[i]
        t = np.einsum("ij,ij->i", points - start, along) / np.einsum("ij,ij->i", along, along)
        nearest = start + np.clip(t, 0, 1)[:, None] * along
        radius = np.minimum(0.6 * neurites.radii[bodies[i]], 170).astype(np.float32)
        inward = radius - np.linalg.norm(points - nearest, axis=1)
        better = (bodies[i] >= 0) & (bodies[i] == bodies[i + 1]) & (inward > depth)
        depth, body = np.where(better, inward, depth), np.where(better, bodies[i], body)
    return depth, body


def _add_membranes(grey: Floats, noise: _Noise, tissue: _Tissue, voxel_size_nm: float) -> None:
    """Dark sheets between neurites, thicker and darker in patches, as at synapses."""
    patch = np.maximum(noise.smooth(70, grey.shape, 200 / voxel_size_nm) - 1.3, 0)
    share = np.exp(-np.square(tissue.depth / (22 + 24 * patch)))
    grey += share * (86 - 14 * np.minimum(patch, 1) - grey)


def _acquire(grey: Floats, noise: _Noise, voxel_size_nm: float) -> Voxels:
    """What the microscope makes of it: blur, white noise, noise that is correlated along x."""
    image = ndimage.gaussian_filter(grey, 9 / voxel_size_nm)
    image += 3.4 * noise.normal(80, *grey.shape)
    image += 5.8 * ndimage.uniform_filter1d(noise.normal(81, *grey.shape), 3, axis=2)
    grey_levels: Voxels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return grey_levels


def _bell(distance: Floats, at: float, width: float) -> Floats:
    shape: Floats = np.exp(-np.square((distance - np.float32(at)) / np.float32(width)))
    return shape


def _inside(depth: Floats, at: float, softness: float = 5.0) -> Floats:
    """From 0 to 1 where `depth` passes `at`, over about `softness` nm on either side."""
    share: Floats = np.clip((depth - np.float32(at)) / np.float32(2 * softness) + np.float32(0.5), 0, 1)
    return share


def _check(shape: Zyx, seed: int, voxel_size_nm: float) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"a phantom of shape {shape}; three lengths of 1 voxel or more are needed, z y x")
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed {seed}; a whole number from 0 to 2**64 - 1 is needed")
    if not 2 <= voxel_size_nm <= 40:
        raise ConfigError(f"voxel size {voxel_size_nm} nm; choose 2 to 40 nm, where membranes can be seen")
