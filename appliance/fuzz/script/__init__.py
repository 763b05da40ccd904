"""Scripts in packetdrill's language, played in virtual time against the stack.

    parser, grammar.lark    text -> events; errors with file, line and column
    events, faults          the shapes of what is read and of what goes wrong
    environment             shell commands of a script, as settings
    sockets, calls          system calls on a `net.stack.Host`
    stage, flow, written    the host on its cable; numbers of script and wire; comparison
    runner, report          playing, and the table

`run_file(path)` plays one.  docs/packetdrill.md tells what of the language is there.
"""
