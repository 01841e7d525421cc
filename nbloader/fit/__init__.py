"""How a model gets onto this machine: number format, devices, quantization, offload. Pure.

Every method (`Method`) gives a placement with its peaks of memory, worked out from the stored
weights of each component; the first that the machine has room for is chosen. The order is that of
speed: all on one GPU, spread over several, 4-bit, 8-bit, then what moves weights while it computes,
then the CPU.
"""

from nbloader.fit.choice import fit, next_method
from nbloader.fit.gpus import gpu_problem

__all__ = ["fit", "gpu_problem", "next_method"]
