"""What networks are trained to do: the loss of a batch, a function of the batch and of its draws.

draws          random numbers of a step, shared out; what an objective is
residual       lean, regression    the residual that linear interpolation leaves
plane_noise    udim, cddpm         the noise in one plane of each gap
onepass        a2i3dem, sru3d      the planes themselves, answered at once
distribution   of a2i3dem          how far two images' textures are apart
"""
