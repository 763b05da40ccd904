"""What runs inside an image: PID 1, and the little that it wants from the kernel.

Imported before the first answer, so each module here imports as little as it can, and what is
wanted later is imported later.
"""
