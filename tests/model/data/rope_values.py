#!/usr/bin/env python3
"""Prints rotary frequencies for rope_test.cc, worked out by wavelength from the papers."""
import math


def plain(theta, dim):
    return [1 / theta ** (i / dim) for i in range(0, dim, 2)]


def linear(theta, dim, factor):
    return [f / factor for f in plain(theta, dim)]


def llama3(theta, dim, factor, low, high, original):
    out = []
    for f in plain(theta, dim):
        wavelength = 2 * math.pi / f
        if wavelength < original / high:
            out.append(f)
        elif wavelength > original / low:
            out.append(f / factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            out.append((1 - smooth) * f / factor + smooth * f)
    return out


def yarn(theta, dim, factor, original, beta_fast=32, beta_slow=1, truncate=True):
    def dim_of(turns):
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))
    low, high = dim_of(beta_fast), dim_of(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    out = []
    for pair, f in enumerate(plain(theta, dim)):
        keep = 1 - min(max((pair - low) / (high - low), 0), 1)
        out.append(f / factor * (1 - keep) + f * keep)
    return out


CASES = {
    "plain": plain(1e6, 8),
    "linear": linear(1e4, 8, 4),
    "llama3": llama3(5e5, 16, 8, 1, 4, 8192),
    "llama3 small": llama3(5e5, 16, 8, 1, 4, 64),
    "yarn": yarn(1e4, 16, 4, 4096),
    "yarn unrounded": yarn(1.5e5, 16, 32, 4096, truncate=False),
    "yarn one step": yarn(5e4, 16, 32, 4096, beta_fast=1, beta_slow=1,
                          truncate=False),
}
for name, values in CASES.items():
    print(f"// {name}")
    print("{" + ", ".join(f"{v:.12e}" for v in values) + "}")
print(f"yarn scale 4: {0.1 * math.log(4) + 1:.15f}")
print(f"yarn scale 40, mscale 1 over 0.707: "
      f"{(0.1 * math.log(40) + 1) / (0.1 * 0.707 * math.log(40) + 1):.15f}")
