"""Single-purpose images: the appliance as the machine, for QEMU, a disk, and containers.

    configure   lock.py       what the image depends on, written down
    build       graph.py      steps, each made again only when what it depends on has changed
                recipe.py     the steps: closure, bytecode, content, initramfs, kernel, disk, OCI
    run         machine.py    QEMU, and libvirt.py
    inside      guest/        PID 1 and what it needs of Linux

Nothing here is imported by a running appliance but `guest`, and that by an image only.
"""
