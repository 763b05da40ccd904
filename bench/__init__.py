"""Side-by-side benchmarks of the appliance against the programs that people use today.

Run as `python -m bench` from the repository's root, as root. It opens two network namespaces:

    client namespace ── veth ── server namespace: nginx (one worker), NSD (one server)
          │
          └── tap: the appliance, its process inside the client namespace

so that both sides are reached from the same place, by the same load generator, over one virtual
cable each. The generator is pinned to one processor, the server under test to another; rounds
alternate between ours and the peer; answers are checked before they are timed. Nothing is left
behind, however the run ends. It imports nothing of the appliance, which is driven by its
command line alone; but for `sink`, which runs TCP as a library.
"""
